package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"text/template"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildInspect(a *app, cmd *cobra.Command) {
	o := inspectFlags(a, cmd)
	cmd.Flags().StringVar(&o.kind, "type", "", "Look only at one kind of object: container, image or volume")
	cmd.Flags().BoolVarP(&o.size, "size", "s", false, "Show sizes of containers")
	cmd.Use += " [OPTIONS] NAME|ID [NAME|ID...]"
}

func buildContainerInspect(a *app, cmd *cobra.Command) {
	o := inspectFlags(a, cmd)
	o.kind = "container"
	cmd.Flags().BoolVarP(&o.size, "size", "s", false, "Show sizes")
	cmd.Use += " [OPTIONS] CONTAINER [CONTAINER...]"
}

func buildImageInspect(a *app, cmd *cobra.Command) {
	o := inspectFlags(a, cmd)
	o.kind = "image"
	cmd.Flags().StringVar(&o.platform, "platform", "", "Show the image for this platform, os/arch[/variant]")
	cmd.Use += " [OPTIONS] IMAGE [IMAGE...]"
}

type inspectOptions struct {
	format, kind string
	platform     string // of images
	size         bool
}

func inspectFlags(a *app, cmd *cobra.Command) *inspectOptions {
	o := new(inspectOptions)
	cmd.Args = a.arguments(1, -1)
	cmd.Flags().StringVarP(&o.format, "format", "f", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.inspect(cmd, args, *o) }
	return o
}

// object is something inspected: decoded, and as the server wrote it.
type object struct {
	value any
	raw   json.RawMessage
}

func (a *app) inspect(cmd *cobra.Command, names []string, o inspectOptions) error {
	switch o.kind {
	case "", "container", "image", "network", "volume":
	case "plugin", "config", "secret", "service", "node", "task":
		return errdef.NotImplemented("this version has no objects of the type %s", o.kind)
	default:
		return errdef.Invalid("unknown type: %q: must be one of container, image, network, volume", o.kind)
	}
	t, err := inspectTemplate(o.format)
	if err != nil {
		return status(exitTemplate, err)
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	var found []object
	var failures []error
	for _, name := range names {
		obj, err := inspectOne(cmd, c, name, o)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		found = append(found, obj)
	}
	if err := a.printObjects(t, o.format, found); err != nil {
		return err
	}
	for _, err := range failures {
		a.complain(err)
	}
	if len(failures) > 0 {
		return exit(1)
	}
	return nil
}

func inspectOne(cmd *cobra.Command, c *client.Client, name string, o inspectOptions) (object, error) {
	if o.kind == "network" {
		v, raw, err := c.NetworkInspect(cmd.Context(), name)
		return object{v, raw}, err
	}
	if o.kind == "volume" {
		v, raw, err := c.VolumeInspect(cmd.Context(), name)
		return object{v, raw}, err
	}
	if o.kind != "image" {
		v, raw, err := c.ContainerInspect(cmd.Context(), name, o.size)
		if err == nil {
			return object{v, raw}, nil
		}
		// A reference with a registry or a digest is no container's name, and says so in another way.
		if o.kind == "container" || !(errors.Is(err, errdef.ErrNotFound) || errors.Is(err, errdef.ErrInvalid)) {
			return object{}, err
		}
	}
	v, raw, err := c.ImageInspect(cmd.Context(), name, o.platform)
	if err == nil {
		return object{v, raw}, nil
	}
	if o.kind == "" && errors.Is(err, errdef.ErrNotFound) {
		if v, raw, err := c.NetworkInspect(cmd.Context(), name); err == nil {
			return object{v, raw}, nil
		}
		if v, raw, err := c.VolumeInspect(cmd.Context(), name); err == nil {
			return object{v, raw}, nil
		}
		return object{}, errdef.NotFound("No such object: %s", name)
	}
	return object{}, err
}

func inspectTemplate(format string) (*template.Template, error) {
	if format == "" || format == "json" {
		return nil, nil
	}
	return parseTemplate(format)
}

func (a *app) printObjects(t *template.Template, format string, list []object) error {
	var b bytes.Buffer
	var err error
	switch {
	case t != nil:
		err = writeTemplate(&b, t, list)
	case format == "json":
		err = json.Compact(&b, array(list))
		b.WriteByte('\n')
	case len(list) == 0:
		b.WriteString("[]\n")
	default:
		err = json.Indent(&b, array(list), "", "    ")
		b.WriteByte('\n')
	}
	if _, werr := a.out.Write(b.Bytes()); err == nil {
		err = werr
	}
	return err
}

// array keeps what the server said, fields this client does not know included.
func array(list []object) []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, o := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(o.raw)
	}
	b.WriteByte(']')
	return b.Bytes()
}

func writeTemplate(b *bytes.Buffer, t *template.Template, list []object) error {
	for _, o := range list {
		var line bytes.Buffer
		if err := execute(t, &line, o.value); err != nil {
			// A newer server has fields this client has no name for.
			line.Reset()
			if rerr := executeRaw(t, &line, o.raw); rerr != nil {
				return err
			}
		}
		b.Write(line.Bytes())
		b.WriteByte('\n')
	}
	return nil
}

func executeRaw(t *template.Template, b *bytes.Buffer, raw json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	t, err := t.Clone()
	if err != nil {
		return err
	}
	return execute(t.Option("missingkey=error"), b, v)
}
