package cli

import (
	"hull/client"

	"github.com/spf13/pflag"
)

// listing is what all commands share that list things by name: networks, volumes.
type listing struct {
	quiet  bool
	filter filterFlag
	format string
}

func (o *listing) flags(f *pflag.FlagSet, filters, keys string) {
	f.VarP(&o.filter, "filter", "f", "Show only what matches ("+filters+")")
	f.StringVar(&o.format, "format", "", formatUsage)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print "+keys+" only")
}

// engine is app.engine, once it is clear that what comes can be printed.
func (o *listing) engine(a *app) (*client.Client, error) {
	if err := checkFormat(o.format); err != nil {
		return nil, err
	}
	return a.engine()
}

// print prints the rows, or with --quiet what key says of each.
func (o *listing) print(a *app, columns []column, headers map[string]string, rows []any, key func(i int) string) error {
	if !o.quiet {
		return a.printRows(o.format, columns, headers, rows, false)
	}
	for i := range rows {
		a.out.println(key(i))
	}
	return nil
}
