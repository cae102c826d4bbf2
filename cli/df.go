package cli

import (
	"fmt"
	"strconv"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func buildDf(a *app, cmd *cobra.Command) {
	var verbose bool
	var format string
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show each image, container and volume")
	cmd.Flags().StringVar(&format, "format", "", formatUsage)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if verbose && format != "" && format != "table" && format != "json" {
			return errdef.Invalid("--verbose shows tables, or everything with --format json")
		}
		if err := checkFormat(format); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		u, err := c.DiskUsage(cmd.Context())
		if err != nil {
			return err
		}
		if !verbose && format != "" && format != "table" {
			return a.printRows(format, dfColumns[:], dfHeaders(), dfRows(u), true)
		}
		d, err := c.Disk(cmd.Context())
		if err != nil && errdef.Kind(err) != errdef.ErrNotImplemented { // of another engine
			return err
		}
		switch {
		case format == "json":
			return a.printTemplate(format, []any{dfAll{u, d}})
		case verbose:
			err = a.dfVerbose(u)
		default:
			err = a.printTable(dfColumns[:], dfRows(u), true)
		}
		if err != nil || d.Root == "" {
			return err
		}
		return a.dfDisk(d)
	}
}

// dfAll is everything, for --verbose --format json.
type dfAll struct {
	*client.Usage
	Disk client.Disk
}

// dfDisk shows every byte of the store.
func (a *app) dfDisk(d client.Disk) error {
	a.out.println("\nOn disk, below " + a.cell(d.Root) + ":\n")
	var rows []any
	for _, p := range append(d.Parts, client.DiskPart{Kind: "Total", Bytes: d.Total}) {
		rows = append(rows, &diskRow{p})
	}
	if err := a.printTable([]column{{"Kind", "KIND"}, {"Size", "SIZE"}, {"Bytes", "BYTES"}}, rows, false); err != nil {
		return err
	}
	if d.Dropped > 0 {
		a.out.println("\nBlobs that were dropped, and that a registry is known to hold: " + size(d.Dropped))
	}
	if d.Droppable > 0 {
		a.out.println("\nBlobs that a registry is known to hold too: " + size(d.Droppable) + " (hull gc --drop-blobs)")
	}
	if d.Closed > 0 {
		a.err.printf("Directories that could not be looked into, so that what is there is not counted: %d\n", d.Closed)
	}
	return nil
}

type diskRow struct{ p client.DiskPart }

func (*diskRow) isRow() {}

func (r *diskRow) Kind() string  { return r.p.Kind }
func (r *diskRow) Size() string  { return size(r.p.Bytes) }
func (r *diskRow) Bytes() string { return strconv.FormatInt(r.p.Bytes, 10) }

var dfColumns = [...]column{
	{"Type", "TYPE"}, {"TotalCount", "TOTAL"}, {"Active", "ACTIVE"}, {"Size", "SIZE"}, {"Reclaimable", "RECLAIMABLE"},
}

func dfHeaders() map[string]string {
	h := map[string]string{}
	for _, c := range dfColumns {
		h[c.method] = c.header
	}
	return h
}

// dfRow is one kind of thing that takes up space.
type dfRow struct {
	kind          string
	count, active int
	size, free    int64
}

func (*dfRow) isRow() {}

func (r *dfRow) Type() string       { return r.kind }
func (r *dfRow) TotalCount() string { return strconv.Itoa(r.count) }
func (r *dfRow) Active() string     { return strconv.Itoa(r.active) }
func (r *dfRow) Size() string       { return units.HumanSize(float64(r.size)) }

func (r *dfRow) Reclaimable() string {
	if r.size <= 0 || r.kind == "Build Cache" {
		return units.HumanSize(float64(r.free))
	}
	return fmt.Sprintf("%s (%d%%)", units.HumanSize(float64(r.free)), r.free*100/r.size)
}

func dfRows(u *client.Usage) []any {
	images := &dfRow{kind: "Images", count: len(u.Images), size: u.LayersSize, free: u.LayersSize}
	for _, i := range u.Images {
		if i.Containers == 0 {
			continue
		}
		images.active++
		if i.Size >= 0 && i.SharedSize >= 0 { // as Docker counts: what images share can be reclaimed with the last of them only
			images.free -= i.Size - i.SharedSize
		}
	}
	images.free = max(images.free, 0)
	containers := &dfRow{kind: "Containers", count: len(u.Containers)}
	for _, c := range u.Containers {
		containers.size += c.SizeRw
		switch c.State {
		case "running", "paused", "restarting":
			containers.active++
		default:
			containers.free += c.SizeRw
		}
	}
	volumes := &dfRow{kind: "Local Volumes", count: len(u.Volumes)}
	for _, v := range u.Volumes {
		volumes.size += max(v.Size, 0)
		if v.Users > 0 {
			volumes.active++
		} else {
			volumes.free += max(v.Size, 0)
		}
	}
	cache := &dfRow{kind: "Build Cache", count: len(u.BuildCache)}
	for _, r := range u.BuildCache {
		if r.Shared {
			continue
		}
		cache.size += r.Size
		if r.InUse {
			cache.active++
		} else {
			cache.free += r.Size
		}
	}
	return []any{images, containers, volumes, cache}
}

// dfVerbose lists everything, kind by kind.
func (a *app) dfVerbose(u *client.Usage) error {
	now := time.Now()
	var images, containers, volumes []any
	for _, i := range u.Images {
		images = append(images, imageRows(&i, false, true, now)...)
	}
	for _, c := range u.Containers {
		containers = append(containers, &dfContainerRow{containerRow{&c, true, now}})
	}
	for _, v := range u.Volumes {
		volumes = append(volumes, &dfVolumeRow{v})
	}
	for _, t := range []struct {
		title   string
		columns []column
		rows    []any
	}{
		{"Images space usage:", []column{{"Repository", "REPOSITORY"}, {"Tag", "TAG"}, {"ID", "IMAGE ID"}, {"CreatedSince", "CREATED"},
			{"Size", "SIZE"}, {"SharedSize", "SHARED SIZE"}, {"UniqueSize", "UNIQUE SIZE"}, {"Containers", "CONTAINERS"}, {"LastUsed", "LAST USED"}}, images},
		{"\nContainers space usage:", []column{{"ID", "CONTAINER ID"}, {"Image", "IMAGE"}, {"Command", "COMMAND"},
			{"LocalVolumes", "LOCAL VOLUMES"}, {"Size", "SIZE"}, {"RunningFor", "CREATED"}, {"Status", "STATUS"}, {"Names", "NAMES"}}, containers},
		{"\nLocal Volumes space usage:", []column{{"Name", "VOLUME NAME"}, {"Links", "LINKS"}, {"Size", "SIZE"}}, volumes},
	} {
		a.out.println(t.title + "\n")
		if err := a.printTable(t.columns, t.rows, false); err != nil {
			return err
		}
	}
	var cache int64
	for _, r := range u.BuildCache {
		cache += r.Size
	}
	a.out.println("\nBuild cache usage: " + units.HumanSize(float64(cache)))
	return nil
}

// dfContainerRow shows only what the container itself has written.
type dfContainerRow struct{ containerRow }

func (r *dfContainerRow) Size() string { return units.HumanSize(float64(r.s.SizeRw)) }

type dfVolumeRow struct{ v client.VolumeUsage }

func (*dfVolumeRow) isRow() {}

func (r *dfVolumeRow) Name() string  { return r.v.Name }
func (r *dfVolumeRow) Links() string { return knownNumber(r.v.Users) }
func (r *dfVolumeRow) Size() string {
	if r.v.Size < 0 {
		return "N/A"
	}
	return units.HumanSize(float64(r.v.Size))
}
