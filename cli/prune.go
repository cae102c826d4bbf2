package cli

import (
	"bufio"
	"context"
	"io"
	"strings"

	"hull/client"
	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// pruneOptions are the flags all prunes have.
type pruneOptions struct {
	force, dry bool
	filter     filterFlag
}

func (o *pruneOptions) flags(f *pflag.FlagSet) {
	f.Var(&o.filter, "filter", "Remove only what matches (label=a=b, ...)")
	f.BoolVarP(&o.force, "force", "f", false, "Do not ask")
	f.BoolVar(&o.dry, "dry-run", false, "Remove nothing, and print what would be removed")
}

// pruned is what a prune removed.
type pruned struct {
	list  string // lines, with a heading
	count int
	bytes uint64
}

// prune asks the person, unless told not to, calls do, and prints what is gone: or, of a dry run, what would be.
func (a *app) prune(ctx context.Context, o *pruneOptions, warning string, do func(client.Filters) (pruned, error)) error {
	if !o.force && !o.dry {
		ok, err := a.confirm(warning + "\nAre you sure you want to continue?")
		if err != nil {
			return err
		}
		if !ok {
			return errdef.Invalid("prune has been cancelled")
		}
	}
	p, err := do(o.filter.f)
	if err != nil {
		return err
	}
	if p.count > 0 {
		list := p.list
		if o.dry {
			list = strings.Replace(list, "Deleted", "Would delete", 1)
		}
		a.out.println(list + "\n")
	}
	total := "Total reclaimed space: "
	if o.dry {
		total = "Total reclaimable space: "
	}
	a.out.println(total + units.HumanSize(float64(p.bytes)))
	return nil
}

// confirm asks a question that is answered with y or not at all.
func (a *app) confirm(question string) (bool, error) {
	a.out.printf("%s [y/N] ", question)
	line, err := bufio.NewReader(a.Stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, err
	}
	if err == io.EOF {
		a.out.println() // nobody ended the line
	}
	return strings.EqualFold(strings.TrimSpace(line), "y"), nil
}
