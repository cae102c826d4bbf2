package cli

import (
	"strconv"
	"strings"
	"time"

	"hull/client"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func buildGC(a *app, cmd *cobra.Command) {
	var o client.GCOptions
	var format string
	cmd.Use += " [OPTIONS]"
	cmd.Long = "Remove images that have not been used for long, and what nothing needs.\n\n" +
		"Without --keep and --unused-for, and without a budget in the settings, only images without a name go. What a\n" +
		"container, a pin, the trash or the recent past of a name needs stays in any case."
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.StringVar(&o.Keep, "keep", "", "Remove images, the least recently used first, until all take no more than this (20GB)")
	f.StringVar(&o.UnusedFor, "unused-for", "", "Remove only images that have not been used for that long (14d); with --keep the default is 1h")
	f.StringVar(&o.Reflog, "reflog", "", "Keep for that long what a name was before it was given to another image (default 30d)")
	f.BoolVar(&o.Drop, "drop-blobs", false, "Drop the blobs of layers that are unpacked and that a registry is known to hold; who needs one fetches it again")
	f.BoolVar(&o.Dry, "dry-run", false, "Remove nothing, and print what would be removed")
	f.StringVar(&format, "format", "", formatUsage)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(format); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		done := func() {}
		if a.err.terminal && !o.Dry {
			if o.Progress, done, err = a.checkProgress("auto"); err != nil {
				return err
			}
		}
		got, err := c.GC(cmd.Context(), o)
		done()
		if err != nil {
			return err
		}
		if format != "" && format != "table" {
			return a.printTemplate(format, []any{&gcRow{got}})
		}
		return a.printCollected(got, o)
	}
}

// gcRow is the whole outcome, for --format.
type gcRow struct{ client.Collected }

func (a *app) printCollected(got client.Collected, o client.GCOptions) error {
	now := time.Now()
	if len(got.Images) > 0 {
		rows := make([]any, 0, len(got.Images))
		for _, i := range got.Images {
			rows = append(rows, &collectedRow{i, now})
		}
		columns := []column{{"ID", "IMAGE ID"}, {"Names", "NAMES"}, {"LastUsed", "LAST USED"}, {"Size", "SIZE"}}
		if err := a.printTable(columns, rows, false); err != nil {
			return err
		}
		a.out.println()
	}
	if len(got.Dropped) > 0 {
		rows := make([]any, 0, len(got.Dropped))
		for _, b := range got.Dropped {
			rows = append(rows, &droppedRow{b})
		}
		columns := []column{{"Digest", "BLOB"}, {"From", "KEPT BY"}, {"Size", "SIZE"}, {"Bytes", "BYTES"}}
		if err := a.printTable(columns, rows, false); err != nil {
			return err
		}
		a.out.println()
	}
	for _, i := range got.Stay {
		a.out.printf("%s stays: %s\n", shortID(i.ID), a.cell(i.Why))
	}
	reclaimed := "reclaimed"
	if o.Dry {
		reclaimed = "reclaimable"
	}
	a.out.printf("Total %s space: %s\n", reclaimed, units.HumanSize(float64(got.SpaceReclaimed)))
	if o.Keep != "" && !o.Dry {
		a.out.printf("Images take %s\n", units.HumanSize(float64(got.After)))
	}
	return nil
}

// droppedRow is the blob of a layer that is not kept here any more.
type droppedRow struct{ b client.DroppedBlob }

func (*droppedRow) isRow() {}

func (r *droppedRow) Digest() string { return shortID(r.b.Digest) }
func (r *droppedRow) From() string   { return r.b.From }
func (r *droppedRow) Size() string   { return size(r.b.Size) }
func (r *droppedRow) Bytes() string  { return strconv.FormatInt(r.b.Size, 10) }

// collectedRow is an image that went.
type collectedRow struct {
	i   client.CollectedImage
	now time.Time
}

func (*collectedRow) isRow() {}

func (r *collectedRow) ID() string       { return shortID(r.i.ID) }
func (r *collectedRow) LastUsed() string { return ago(r.i.LastUsed, r.now) }
func (r *collectedRow) Size() string     { return size(r.i.Size) }

func (r *collectedRow) Names() string {
	if len(r.i.Names) == 0 {
		return none
	}
	return strings.Join(r.i.Names, ", ")
}
