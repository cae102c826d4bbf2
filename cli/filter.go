package cli

import (
	"maps"
	"slices"
	"strings"

	"hull/client"
	"hull/errdef"
)

// filterFlag collects --filter key=value.
type filterFlag struct{ f client.Filters }

func (f *filterFlag) String() string { return "" }
func (f *filterFlag) Type() string   { return "filter" }

func (f *filterFlag) Set(s string) error {
	if s == "" {
		return nil
	}
	k, v, ok := strings.Cut(s, "=")
	if !ok {
		return errdef.Invalid("invalid filter %q, it has the form name=value", s)
	}
	if f.f == nil {
		f.f = client.Filters{}
	}
	k = strings.ToLower(strings.TrimSpace(k))
	f.f[k] = append(f.f[k], strings.TrimSpace(v))
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
