package cli

import (
	"strconv"
	"strings"

	"hull/ref"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
)

// descriptionWidth is how much of a description is shown, as with Docker.
const descriptionWidth = 45

func buildSearch(a *app, cmd *cobra.Command) {
	var filter filterFlag
	var limit int
	var format string
	var whole bool
	cmd.Use += " [OPTIONS] [REGISTRY/]TERM"
	cmd.Long = "Search a registry for images, Docker Hub unless another stands before the term."
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.VarP(&filter, "filter", "f", "Show only what matches (is-official=true, stars=3)")
	f.IntVar(&limit, "limit", 0, "How many results at most, up to 100 (25)")
	f.StringVar(&format, "format", "", formatUsage)
	f.BoolVar(&whole, "no-trunc", false, "Do not shorten anything")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(format); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		r := ref.Ref{Registry: ref.DefaultRegistry}
		if first, _, ok := strings.Cut(args[0], "/"); ok {
			if parsed, err := ref.Parse(first + "/x"); err == nil {
				r.Registry = parsed.Registry
			}
		}
		found, err := c.Search(cmd.Context(), args[0], limit, filter.f, a.registryAuth(cmd.Context(), c, r))
		if err != nil {
			return err
		}
		rows := make([]any, len(found))
		for i, s := range found {
			rows[i] = searchRow{s, !whole}
		}
		columns := []column{{"Name", "NAME"}, {"Description", "DESCRIPTION"}, {"StarCount", "STARS"}, {"IsOfficial", "OFFICIAL"}}
		headers := map[string]string{"IsAutomated": "AUTOMATED"}
		for _, c := range columns {
			headers[c.method] = c.header
		}
		return a.printRows(format, columns, headers, rows, whole)
	}
}

// searchRow is a row of search.
type searchRow struct {
	s     registry.SearchResult
	short bool
}

func (searchRow) isRow()              {}
func (r searchRow) Name() string      { return r.s.Name }
func (r searchRow) StarCount() string { return strconv.Itoa(r.s.StarCount) }

// Description stands on one line.
func (r searchRow) Description() string {
	s := strings.NewReplacer("\n", " ", "\r", " ").Replace(r.s.Description)
	if r.short {
		return ellipsis(s, descriptionWidth)
	}
	return s
}

func (r searchRow) IsOfficial() string {
	if r.s.IsOfficial {
		return "[OK]"
	}
	return ""
}

// IsAutomated is a column of Docker's that nothing has any more.
func (searchRow) IsAutomated() string { return "" }
