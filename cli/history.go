package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"
)

func buildHistory(a *app, cmd *cobra.Command) {
	var o historyOptions
	cmd.Use += " [OPTIONS] IMAGE"
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", formatUsage)
	f.BoolVarP(&o.human, "human", "H", true, "Print sizes and dates for people to read")
	f.BoolVar(&o.whole, "no-trunc", false, "Do not shorten anything")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print ids only")
	f.StringVar(&o.platform, "platform", "", "Show the image for this platform, os/arch[/variant]")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(o.format); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		list, err := c.ImageHistory(cmd.Context(), args[0], o.platform)
		if err != nil {
			return err
		}
		return a.history(list, &o)
	}
}

type historyOptions struct {
	format, platform    string
	human, whole, quiet bool
}

func (a *app) history(list []image.HistoryResponseItem, o *historyOptions) error {
	rows := make([]any, len(list))
	for i := range list {
		rows[i] = &historyRow{h: list[i], o: o, now: time.Now()}
	}
	if o.quiet {
		return a.printIDs(o.format, rows)
	}
	columns := historyColumns[:]
	headers := map[string]string{"CreatedAt": "CREATED AT", "CreatedSince": "CREATED"}
	if !o.human {
		columns = append([]column{columns[0], {"CreatedAt", "CREATED AT"}}, columns[2:]...)
	}
	for _, c := range columns {
		headers[c.method] = c.header
	}
	return a.printRows(o.format, columns, headers, rows, o.whole)
}

var historyColumns = [...]column{{"ID", "IMAGE"}, {"CreatedSince", "CREATED"}, {"CreatedBy", "CREATED BY"}, {"Size", "SIZE"}, {"Comment", "COMMENT"}}

// historyRow has the fields Docker's templates for a history know.
type historyRow struct {
	h   image.HistoryResponseItem
	o   *historyOptions
	now time.Time
}

func (*historyRow) isRow() {}

func (r *historyRow) ID() string {
	if r.o.whole || !strings.HasPrefix(r.h.ID, "sha256:") {
		return r.h.ID
	}
	return shortID(r.h.ID)
}

func (r *historyRow) CreatedBy() string {
	s := strings.ReplaceAll(r.h.CreatedBy, "\t", " ")
	if r.o.whole {
		return s
	}
	return ellipsis(s, 45) // as Docker does
}

func (r *historyRow) CreatedAt() string {
	if r.h.Created == 0 {
		return ""
	}
	return time.Unix(r.h.Created, 0).Format(time.RFC3339)
}

func (r *historyRow) CreatedSince() string {
	if !r.o.human {
		return r.CreatedAt()
	}
	return ago(time.Unix(r.h.Created, 0), r.now)
}

func (r *historyRow) Size() string {
	if !r.o.human {
		return strconv.FormatInt(r.h.Size, 10)
	}
	return size(r.h.Size)
}

func (r *historyRow) Comment() string { return r.h.Comment }
