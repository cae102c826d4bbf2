package cli

import (
	"context"
	"errors"
	"os"
	"strings"

	"hull/client"
	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func buildCreate(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS] IMAGE [COMMAND] [ARG...]"
	cmd.Args = a.arguments(1, -1)
	o := containerFlags(cmd.Flags())
	refuseFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := o.request(args[0], args[1:])
		if err != nil {
			return a.usageHint(cmd, err)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		id, err := a.createContainer(cmd.Context(), c, o, req, false)
		if err != nil {
			return err
		}
		a.out.println(id)
		return nil
	}
}

// usageHint is an error in the values of flags.
func (a *app) usageHint(cmd *cobra.Command, err error) error {
	var h *hinted
	if !errors.As(err, &h) {
		err = hint(err, "\nRun '"+cmd.CommandPath()+" --help' for more information")
	}
	return status(exitEngine, err)
}

// createContainer makes the container, writes its id where --cidfile says, and prints the engine's warnings.
func (a *app) createContainer(ctx context.Context, c *client.Client, o *options, req container.CreateRequest, startSoon bool) (string, error) {
	cid, err := openIDFile(o.cidfile)
	if err != nil {
		return "", err
	}
	defer cid.abandon()
	if o.pull == "always" {
		return "", hint(errdef.NotImplemented("--pull always needs a registry client, which this version does not have yet"),
			"Without it the image of this machine is used.")
	}
	req.Env = a.withProxies(req.Env)
	created, err := c.ContainerCreate(ctx, client.CreateOptions{Name: o.name, Platform: o.platform, StartSoon: startSoon}, req)
	if err != nil {
		return "", a.missingImage(err, o, req.Image)
	}
	if o.flags.Changed("kernel-memory") {
		a.warn(noKernelMemory)
	}
	for _, w := range created.Warnings {
		a.warn(w)
	}
	return created.ID, cid.write(created.ID)
}

// missingImage explains what can be done while there is no registry to ask.
func (a *app) missingImage(err error, o *options, image string) error {
	if !errors.Is(err, errdef.ErrNotFound) || !strings.Contains(err.Error(), "No such image") {
		return err
	}
	if o.pull == "never" {
		return err
	}
	if _, tag := splitTag(image); tag == "" && !strings.Contains(image, "@") {
		image += ":latest"
	}
	a.err.printf("Unable to find image '%s' locally\n", image)
	return hint(err, "This version cannot pull images yet. Load an archive of one (docker save) with '"+a.Name+
		" load', or make one of a root file system with '"+a.Name+" import'.")
}

// idFile is the file of --cidfile. It must not exist; what could not be used is removed.
type idFile struct {
	f    *os.File
	kept bool
}

func openIDFile(name string) (*idFile, error) {
	if name == "" {
		return &idFile{}, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, hint(errdef.Conflict("container ID file found, make sure the other container isn't running or delete %s", name),
			"A container's id is never written over another one's.")
	}
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, plainPathError(err))
	}
	return &idFile{f: f}, nil
}

func (c *idFile) write(id string) error {
	if c.f == nil {
		return nil
	}
	if _, err := c.f.WriteString(id); err != nil {
		return plainPathError(err)
	}
	c.kept = true
	return c.f.Close()
}

func (c *idFile) abandon() {
	if c.f != nil && !c.kept {
		c.f.Close()
		os.Remove(c.f.Name())
	}
}
