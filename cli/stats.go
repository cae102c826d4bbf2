package cli

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

// statsPeriod is the time between two samples, which is also what a percentage is measured over.
const statsPeriod = time.Second

func buildStats(a *app, cmd *cobra.Command) {
	var o statsOptions
	cmd.Use += " [OPTIONS] [CONTAINER...]"
	cmd.Args = a.arguments(0, -1)
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers, not only running ones")
	f.StringVar(&o.format, "format", "", formatUsage)
	f.BoolVar(&o.once, "no-stream", false, "Show the first result and end")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten anything")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.stats(cmd, args, o) }
}

type statsOptions struct {
	all, once, noTrunc bool
	format             string
}

// stats shows what containers use: once, again and again, or for somebody to watch.
func (a *app) stats(cmd *cobra.Command, names []string, o statsOptions) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	if len(names) > 0 && o.all {
		return errdef.Invalid("a list of containers and --all exclude each other")
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	s := &statsSampler{c: c, names: names, all: o.all}
	ctx := cmd.Context()
	if err := s.sample(ctx); err != nil { // what the first percentages are measured against
		return err
	}
	if !o.once && o.format == "" && a.out.terminal {
		return a.watchStats(ctx, s, o)
	}
	for {
		if err := sleep(ctx, statsPeriod); err != nil {
			return err
		}
		if err := s.sample(ctx); err != nil {
			return err
		}
		rows := make([]any, len(s.rows))
		for i, r := range s.rows {
			r.short = !o.noTrunc
			rows[i] = r
		}
		if err := a.printRows(o.format, statsColumns[:], statsHeaders(), rows, o.noTrunc); err != nil || o.once {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// statsSampler takes samples of the containers that are to be shown, which come and go.
type statsSampler struct {
	c     *client.Client
	names []string // empty: all that run, or with all set all
	all   bool
	rows  []*statsRow // of the last sample, in the order asked for or by name
}

// sample replaces the rows. A container of a list that is gone is an error; one that went meanwhile is left out.
func (s *statsSampler) sample(ctx context.Context) error {
	names := s.names
	if len(names) == 0 {
		list, err := s.c.ContainerList(ctx, client.ListOptions{All: s.all})
		if err != nil {
			return err
		}
		for _, c := range list {
			names = append(names, c.ID)
		}
	}
	// The samples are taken at the same time: each is one request.
	rows := make([]*statsRow, len(names))
	errs := make([]error, len(names))
	var busy sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, name := range names {
		busy.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			rows[i], errs[i] = s.one(ctx, name)
		})
	}
	busy.Wait()
	for _, err := range errs {
		if err != nil && (len(s.names) > 0 || !errors.Is(err, errdef.ErrNotFound)) {
			return err
		}
	}
	s.rows = slices.DeleteFunc(rows, func(r *statsRow) bool { return r == nil })
	if len(s.names) == 0 {
		slices.SortStableFunc(s.rows, func(x, y *statsRow) int { return cmp.Compare(x.Name(), y.Name()) })
	}
	return nil
}

// one is the row of one container, measured against the row it had before.
func (s *statsSampler) one(ctx context.Context, name string) (*statsRow, error) {
	now, err := s.c.ContainerStats(ctx, name, true)
	if err != nil {
		return nil, err
	}
	r := &statsRow{asked: name, s: now}
	if i := slices.IndexFunc(s.rows, func(old *statsRow) bool { return old.s.ID == now.ID }); i >= 0 {
		r.measure(s.rows[i])
	}
	return r, nil
}

// statsHistory is how many samples a sparkline can show.
const statsHistory = 60

// statsRow has the fields Docker's templates for stats know.
type statsRow struct {
	asked   string // as the person named it
	s       container.StatsResponse
	cpu     float64 // percent of one processor since the sample before
	history []float64
	short   bool
}

func (*statsRow) isRow() {}

func (*statsRow) spare() []string { return []string{"ID", "BlockIO", "NetIO", "MemPerc", "PIDs"} }

// measure takes the use since old. A container that was started anew in between counts from zero.
func (r *statsRow) measure(old *statsRow) {
	r.history = old.history
	if !r.runs() {
		return
	}
	now, before := &r.s.CPUStats, &old.s.CPUStats
	used := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	whole := float64(now.SystemUsage) - float64(before.SystemUsage)
	if before.SystemUsage > 0 && used > 0 && whole > 0 {
		r.cpu = used / whole * float64(max(now.OnlineCPUs, 1)) * 100
	}
	r.history = append(slices.Clone(r.history[max(0, len(r.history)-statsHistory+1):]), r.cpu)
}

// runs reports whether there was anything to measure.
func (r *statsRow) runs() bool { return !r.s.Read.IsZero() }

// unknown stands in a table for what was not measured.
const unknown = "--"

func (r *statsRow) Container() string { return r.asked }

func (r *statsRow) ID() string {
	if r.short {
		return shortID(r.s.ID)
	}
	return r.s.ID
}

func (r *statsRow) Name() string { return strings.TrimPrefix(r.s.Name, "/") }

func (r *statsRow) CPUPerc() string {
	if !r.runs() {
		return unknown
	}
	return percent(r.cpu)
}

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) + "%" }

// memory is what is in use without the page cache that the kernel can drop at once, as Docker counts it: under cgroup v1
// and v2 it has different names.
func (r *statsRow) memory() uint64 {
	m := &r.s.MemoryStats
	cache, ok := m.Stats["total_inactive_file"]
	if !ok {
		cache = m.Stats["inactive_file"]
	}
	if cache >= m.Usage {
		return m.Usage
	}
	return m.Usage - cache
}

func (r *statsRow) memoryShare() float64 {
	if r.s.MemoryStats.Limit == 0 {
		return 0
	}
	return 100 * float64(r.memory()) / float64(r.s.MemoryStats.Limit)
}

func (r *statsRow) MemUsage() string {
	if !r.runs() {
		return unknown + " / " + unknown
	}
	return units.BytesSize(float64(r.memory())) + " / " + units.BytesSize(float64(r.s.MemoryStats.Limit))
}

func (r *statsRow) MemPerc() string {
	if !r.runs() {
		return unknown
	}
	return percent(r.memoryShare())
}

func (r *statsRow) NetIO() string {
	var in, out uint64
	for _, n := range r.s.Networks {
		in, out = in+n.RxBytes, out+n.TxBytes
	}
	return r.both(in, out)
}

func (r *statsRow) BlockIO() string {
	var in, out uint64
	for _, io := range r.s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(io.Op) {
		case "read":
			in += io.Value
		case "write":
			out += io.Value
		}
	}
	return r.both(in, out)
}

func (r *statsRow) both(in, out uint64) string {
	if !r.runs() {
		return unknown
	}
	return size(int64(in)) + " / " + size(int64(out))
}

func (r *statsRow) PIDs() string {
	if !r.runs() {
		return unknown
	}
	return strconv.FormatUint(r.s.PidsStats.Current, 10)
}

var statsColumns = [...]column{
	{"ID", "CONTAINER ID"}, {"Name", "NAME"}, {"CPUPerc", "CPU %"}, {"MemUsage", "MEM USAGE / LIMIT"}, {"MemPerc", "MEM %"},
	{"NetIO", "NET I/O"}, {"BlockIO", "BLOCK I/O"}, {"PIDs", "PIDS"},
}

func statsHeaders() map[string]string {
	h := map[string]string{"Container": "CONTAINER"}
	for _, c := range statsColumns {
		h[c.method] = c.header
	}
	return h
}
