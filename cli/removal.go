package cli

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// removal is what all commands have that remove what could be restored.
type removal struct {
	a      *app
	o      *client.Removal
	dry    bool
	format string

	// mu protects the following.
	mu   sync.Mutex
	keep time.Duration // how long the last of it can be restored
}

func (a *app) removalFlags(f *pflag.FlagSet, o *client.Removal) *removal {
	r := &removal{a: a, o: o}
	f.BoolVar(&o.Now, "no-trash", false, "Remove for good: 'hull undo' will not bring it back")
	r.planFlags(f)
	return r
}

func (r *removal) planFlags(f *pflag.FlagSet) {
	f.BoolVar(&r.dry, "dry-run", false, "Remove nothing, and print what would be removed")
	f.StringVar(&r.format, "format", "", "With --dry-run: "+formatUsage)
}

// begin lets what one command removes be restored together.
func (r *removal) begin(names []string) error {
	if err := r.check(); err != nil {
		return err
	}
	if len(names) > 1 && !r.o.Now {
		r.o.Batch = strconv.FormatUint(rand.Uint64(), 36)
	}
	return nil
}

func (r *removal) check() error {
	if r.format != "" && !r.dry {
		return errdef.Invalid("--format is for --dry-run")
	}
	return checkFormat(r.format)
}

func (r *removal) saved(keep time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep = max(r.keep, keep)
}

// hint tells a person, and no script, how to get back what is gone.
func (r *removal) hint() {
	if r.keep > 0 && r.a.out.terminal && r.a.err.terminal {
		r.a.err.println("(" + r.a.Name + " undo brings it back for " + span(r.keep) + ")")
	}
}

// span is a duration without the zeros of its end.
func span(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d%time.Minute == 0:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return d.String()
}

// plan prints what the removal of each of the names would take. What is absent is said, and no failure.
func (r *removal) plan(names []string, absent func(error) bool, ask func(name string) (client.Plan, error)) error {
	if err := r.check(); err != nil {
		return err
	}
	var all client.Plan
	seen := map[client.PlanItem]bool{} // two names may lead to the same
	failed := r.a.each(names, func(name string) error {
		p, err := ask(name)
		if err != nil && absent(err) {
			r.a.complain(err)
			return nil
		}
		for _, i := range p.Items {
			if i.ID == "" && i.Name == "" || !seen[i] {
				seen[i] = true
				all.Items = append(all.Items, i)
				all.SpaceReclaimed += i.Size
			}
		}
		return err
	})
	if len(all.Items) == 0 && failed != nil {
		return failed
	}
	if err := r.a.printPlan(r.format, &all); err != nil {
		return err
	}
	return failed
}

var planColumns = [...]column{{"Kind", "KIND"}, {"ID", "ID"}, {"Name", "NAME"}, {"Size", "SIZE"}}

// printPlan prints what would go, and how many bytes that are.
func (a *app) printPlan(format string, p *client.Plan) error {
	rows := make([]any, len(p.Items))
	for i := range p.Items {
		rows[i] = &planRow{&p.Items[i]}
	}
	table := format == "" || format == "table"
	if len(rows) > 0 || !table {
		headers := map[string]string{"Kind": "KIND", "ID": "ID", "Name": "NAME", "Size": "SIZE", "Bytes": "BYTES"}
		if err := a.printRows(format, planColumns[:], headers, rows, false); err != nil {
			return err
		}
	}
	if table {
		a.out.println("Total reclaimable space: " + units.HumanSize(float64(p.SpaceReclaimed)))
	}
	return nil
}

// planRow is one thing that would go.
type planRow struct{ i *client.PlanItem }

func (*planRow) isRow() {}

func (r *planRow) Kind() string  { return r.i.Kind }
func (r *planRow) ID() string    { return shortID(r.i.ID) }
func (r *planRow) Name() string  { return r.i.Name }
func (r *planRow) Bytes() string { return strconv.FormatInt(r.i.Size, 10) }
func (r *planRow) Size() string  { return units.HumanSize(float64(r.i.Size)) }
