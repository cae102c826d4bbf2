package cli

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildImageLog(a *app, cmd *cobra.Command) {
	var limit int
	var format string
	var whole, asJSON bool
	cmd.Use += " [OPTIONS] [NAME[:TAG]]"
	cmd.Long = "Show what a tag has named, newest first: NAME@{1} is what it named before the last change, and such a place can be\n" +
		"given wherever an image can. Without NAME show the changes of all tags. The log of a removed tag stays."
	cmd.Args = a.arguments(0, 1)
	f := cmd.Flags()
	f.IntVarP(&limit, "number", "n", 0, "Show at most so many changes")
	f.StringVar(&format, "format", "", formatUsage)
	f.BoolVar(&asJSON, "json", false, "Short for --format json")
	f.BoolVar(&whole, "no-trunc", false, "Do not shorten anything")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return errdef.Invalid("--number must not be negative")
		}
		if asJSON {
			format = "json"
		}
		if err := checkFormat(format); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		name := ""
		if len(args) == 1 {
			name = args[0]
		}
		list, err := c.ImageLog(cmd.Context(), name, limit)
		if err != nil {
			return err
		}
		if format == "json" {
			return printLines(a, list)
		}
		rows := make([]any, len(list))
		for i := range list {
			rows[i] = &versionRow{v: list[i], short: !whole, now: time.Now()}
		}
		columns := versionColumns[:]
		if whole { // also of an image that is gone, for whoever wants it back
			columns = append(slices.Clip(columns), column{"Target", "DIGEST"})
		}
		return a.printRows(format, columns, versionHeaders(), rows, whole)
	}
}

// printLines prints each value as a line of JSON, with all that is known of it and not only what a table shows.
func printLines[T any](a *app, list []T) error {
	for _, v := range list {
		line, err := jsonText(v)
		if err != nil {
			return err
		}
		a.out.println(line)
	}
	return nil
}

var versionColumns = [...]column{
	{"Version", "VERSION"}, {"Since", "WHEN"}, {"ID", "IMAGE ID"}, {"By", "BY"}, {"Revision", "REVISION"}, {"Change", "CHANGE"}, {"State", "STATE"},
}

func versionHeaders() map[string]string {
	h := map[string]string{"Target": "DIGEST", "Time": "TIME", "Size": "SIZE", "Ref": "REFERENCE", "N": "N"}
	for _, c := range versionColumns {
		h[c.method] = c.header
	}
	return h
}

// versionRow is one version in a log.
type versionRow struct {
	v     client.ImageVersion
	short bool
	now   time.Time
}

func (*versionRow) isRow() {}

func (r *versionRow) Version() string { return fmt.Sprintf("%s@{%d}", r.v.Ref, r.v.N) }
func (r *versionRow) Ref() string     { return r.v.Ref }
func (r *versionRow) N() string       { return strconv.Itoa(r.v.N) }
func (r *versionRow) Since() string   { return ago(r.v.Time, r.now) }
func (r *versionRow) Time() string    { return r.v.Time.Local().String() }
func (r *versionRow) By() string      { return r.v.By }
func (r *versionRow) Target() string  { return r.v.Target }

func (r *versionRow) ID() string {
	id := r.v.ID
	if id == "" {
		return none
	}
	if r.short {
		return shortID(id)
	}
	return id
}

// Revision is shortened as git does, when it looks like one of git's.
func (r *versionRow) Revision() string {
	if r.short && len(r.v.Revision) == 40 {
		return r.v.Revision[:12]
	}
	return r.v.Revision
}

func (r *versionRow) Size() string {
	if !r.v.Present {
		return "N/A"
	}
	return size(r.v.Size)
}

func (r *versionRow) Change() string {
	if r.v.Change == nil {
		return r.Size()
	}
	return signedSize(*r.v.Change)
}

// signedSize is a difference of sizes.
func signedSize(n int64) string {
	switch {
	case n < 0:
		return "-" + size(-n)
	case n > 0:
		return "+" + size(n)
	}
	return "0B"
}

func (r *versionRow) State() string {
	switch {
	case r.v.Target == "":
		return "untagged"
	case !r.v.Present:
		return "removed"
	case r.v.Pinned:
		return "pinned"
	}
	return ""
}
