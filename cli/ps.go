package cli

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/client"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func buildPs(a *app, cmd *cobra.Command) {
	var o psOptions
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers, not only running ones")
	f.VarP(&o.filter, "filter", "f", "Show only what matches (status=exited, name=web, label=a=b, ...)")
	f.StringVar(&o.format, "format", "", formatUsage)
	f.IntVarP(&o.last, "last", "n", -1, "Show the n newest containers, whatever their state")
	f.BoolVarP(&o.latest, "latest", "l", false, "Show the newest container, whatever its state")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten anything")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print ids only")
	f.BoolVarP(&o.size, "size", "s", false, "Show sizes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.ps(cmd, o) }
}

type psOptions struct {
	all, latest, noTrunc, quiet, size bool
	last                              int
	filter                            filterFlag
	format                            string
}

func (a *app) ps(cmd *cobra.Command, o psOptions) error {
	if o.format == "" && !o.quiet {
		o.format = a.docker().PsFormat
	}
	if err := checkFormat(o.format); err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	if o.latest && !cmd.Flags().Changed("last") {
		o.last = 1
	}
	// Sizes cost a walk of the file system: they are asked for by a template that shows them, too.
	wantSize := o.size || strings.Contains(o.format, ".Size")
	list, err := c.ContainerList(cmd.Context(), client.ListOptions{All: o.all, Limit: o.last, Size: wantSize, Filters: o.filter.f})
	if err != nil {
		return err
	}
	now := time.Now()
	rows := make([]any, len(list))
	for i := range list {
		rows[i] = &containerRow{&list[i], !o.noTrunc, now}
	}
	if o.quiet {
		return a.printIDs(o.format, rows)
	}
	columns := psColumns[:]
	if o.size {
		columns = append(slices.Clip(columns), column{"Size", "SIZE"})
	}
	return a.printRows(o.format, columns, psHeaders(), rows, o.noTrunc)
}

var psColumns = [...]column{
	{"ID", "CONTAINER ID"}, {"Image", "IMAGE"}, {"Command", "COMMAND"}, {"RunningFor", "CREATED"},
	{"Status", "STATUS"}, {"Ports", "PORTS"}, {"Names", "NAMES"},
}

func psHeaders() map[string]string {
	h := map[string]string{
		"CreatedAt": "CREATED AT", "State": "STATE", "Labels": "LABELS", "Mounts": "MOUNTS", "Size": "SIZE",
		"LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
	}
	for _, c := range psColumns {
		h[c.method] = c.header
	}
	return h
}

// containerRow has the fields Docker's templates for lists of containers know.
type containerRow struct {
	s     *client.ContainerSummary
	short bool
	now   time.Time
}

func (*containerRow) isRow() {}

func (*containerRow) spare() []string { return []string{"Command", "ID", "RunningFor", "Image"} }

func (r *containerRow) known(field string) (string, bool) {
	switch field {
	case "ID":
		return r.ID(), true
	case "Image":
		return r.Image(), true
	case "Command":
		return r.Command(), true
	case "RunningFor":
		return r.RunningFor(), true
	case "Status":
		return r.Status(), true
	case "Ports":
		return r.Ports(), true
	case "Names":
		return r.Names(), true
	}
	return "", false
}

func (r *containerRow) ID() string {
	if r.short {
		return shortID(r.s.ID)
	}
	return r.s.ID
}

func (r *containerRow) Names() string {
	var names []string
	for _, n := range r.s.Names {
		n = strings.TrimPrefix(n, "/")
		if r.short && strings.Contains(n, "/") { // the name another container links it by
			continue
		}
		names = append(names, n)
	}
	return strings.Join(names, ",")
}

func (r *containerRow) Image() string {
	switch {
	case r.s.Image == "":
		return "<no image>"
	case r.short && r.s.Image == r.s.ImageID: // it has lost its name
		return shortID(r.s.Image)
	case r.short:
		if name, _, ok := strings.Cut(r.s.Image, "@"); ok {
			return name
		}
	}
	return r.s.Image
}

func (r *containerRow) Command() string {
	c := r.s.Command
	if r.short {
		c = ellipsis(c, 20)
	}
	return strconv.Quote(c)
}

func (r *containerRow) CreatedAt() string  { return time.Unix(r.s.Created, 0).String() }
func (r *containerRow) RunningFor() string { return ago(time.Unix(r.s.Created, 0), r.now) }
func (r *containerRow) Ports() string      { return portText(r.s.Ports) }
func (r *containerRow) State() string      { return string(r.s.State) }
func (r *containerRow) Status() string     { return r.s.Status }
func (r *containerRow) Labels() string     { return labelText(r.s.Labels) }

func (r *containerRow) Size() string {
	s := size(r.s.SizeRw)
	if r.s.SizeRootFs > 0 {
		s += " (virtual " + size(r.s.SizeRootFs) + ")"
	}
	return s
}

// Label is the value of one label.
func (r *containerRow) Label(name string) string { return r.s.Labels[name] }

func (r *containerRow) Mounts() string {
	var all []string
	for _, m := range r.s.Mounts {
		n := m.Name
		if n == "" {
			n = m.Source
		}
		if r.short {
			n = ellipsis(n, 15)
		}
		all = append(all, n)
	}
	return strings.Join(all, ",")
}

func (r *containerRow) LocalVolumes() string {
	n := 0
	for _, m := range r.s.Mounts {
		if m.Driver == "local" {
			n++
		}
	}
	return strconv.Itoa(n)
}

func (r *containerRow) Networks() string {
	return strings.Join(sortedKeys(r.s.NetworkSettings.Networks), ",")
}

// Platform is that of the image, when the engine says which of several it is.
func (r *containerRow) Platform() *platform {
	return (*platform)(r.s.ImageManifestDescriptor.Platform)
}

type platform ocispec.Platform

func (p *platform) String() string {
	switch {
	case p == nil:
		return ""
	case p.Variant != "":
		return p.OS + "/" + p.Architecture + "/" + p.Variant
	}
	return p.OS + "/" + p.Architecture
}
