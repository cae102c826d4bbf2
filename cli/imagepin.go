package cli

import (
	"time"

	"hull/client"

	"github.com/spf13/cobra"
)

func buildImagePin(a *app, cmd *cobra.Command) {
	var reason string
	cmd.Use += " [OPTIONS] IMAGE [IMAGE...]"
	cmd.Long = "Keep images whatever becomes of their names: only rmi -f removes a pinned one."
	cmd.Args = a.arguments(1, -1)
	cmd.Flags().StringVar(&reason, "reason", "", "What the pin is for")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args, func(ref string) error {
			p, err := c.ImagePin(cmd.Context(), ref, reason)
			if err == nil {
				a.out.println("Pinned: " + p.ID)
			}
			return err
		})
	}
}

func buildImageUnpin(a *app, cmd *cobra.Command) {
	cmd.Use += " IMAGE [IMAGE...]"
	cmd.Args = a.arguments(1, -1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args, func(ref string) error {
			p, err := c.ImageUnpin(cmd.Context(), ref)
			if err == nil {
				a.out.println("Unpinned: " + p.ID)
			}
			return err
		})
	}
}

func buildImagePins(a *app, cmd *cobra.Command) {
	var format string
	var whole, quiet bool
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.StringVar(&format, "format", "", formatUsage)
	f.BoolVar(&whole, "no-trunc", false, "Do not shorten anything")
	f.BoolVarP(&quiet, "quiet", "q", false, "Print ids only")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(format); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		list, err := c.ImagePins(cmd.Context())
		if err != nil {
			return err
		}
		if format == "json" && !quiet {
			return printLines(a, list)
		}
		rows := make([]any, len(list))
		for i := range list {
			rows[i] = &pinRow{p: list[i], short: !whole, now: time.Now()}
		}
		if quiet {
			return a.printIDs(format, rows)
		}
		headers := map[string]string{"Time": "TIME"}
		for _, col := range pinColumns {
			headers[col.method] = col.header
		}
		return a.printRows(format, pinColumns[:], headers, rows, whole)
	}
}

var pinColumns = [...]column{{"ID", "IMAGE ID"}, {"Name", "PINNED AS"}, {"Since", "PINNED"}, {"Size", "SIZE"}, {"Reason", "REASON"}}

type pinRow struct {
	p     client.ImagePin
	short bool
	now   time.Time
}

func (*pinRow) isRow() {}

func (r *pinRow) ID() string {
	if r.short {
		return shortID(r.p.ID)
	}
	return r.p.ID
}

func (r *pinRow) Name() string   { return r.p.Name }
func (r *pinRow) Reason() string { return r.p.Reason }
func (r *pinRow) Since() string  { return ago(r.p.Time, r.now) }
func (r *pinRow) Time() string   { return r.p.Time.Local().String() }
func (r *pinRow) Size() string   { return size(r.p.Size) }
