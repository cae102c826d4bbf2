package build

import (
	"context"
	"encoding/json"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"hull/builds"
	"hull/errdef"
)

// mergeOp puts file systems on top of each other: COPY --link.
type mergeOp struct {
	operation
	op *pb.MergeOp
}

func (m *mergeOp) CacheMap(context.Context, solver.JobContext, int) (*solver.CacheMap, bool, error) {
	data, err := json.Marshal(struct {
		Type  string
		Merge *pb.MergeOp
	}{"hull.merge.v1", m.op})
	return newCacheMap(digest.FromBytes(data), len(m.v.Inputs())), true, err
}

func (m *mergeOp) Acquire(ctx context.Context) (solver.ReleaseFunc, error) { return m.b.acquire(ctx) }

// Exec costs nothing where what comes on top is snapshots only: a snapshot is what changes, whatever is below it.
func (m *mergeOp) Exec(ctx context.Context, jc solver.JobContext, inputs []solver.Result) ([]solver.Result, error) {
	j, err := m.job(jc)
	if err != nil {
		return nil, err
	}
	out := &builds.FS{}
	for i, in := range m.op.Inputs {
		if in.Input < 0 || in.Input >= int64(len(inputs)) {
			return nil, errdef.Invalid("merge of input %d", in.Input)
		}
		t, err := treeOf(inputs[in.Input])
		if err != nil {
			return nil, err
		}
		f := t.fs
		if f == nil {
			if f, err = j.copied(ctx, t); err != nil {
				return nil, err
			}
		}
		switch {
		case i == 0:
			out = f
		case len(f.Layers) == 0:
			for _, id := range f.Snapshots {
				out = out.Over(id)
			}
		default: // layers of an image name those below them: its files are copied
			err := j.enclose(func(r *room) (err error) {
				out, err = r.copyOver(ctx, out, &tree{fs: f}, m.v.Name())
				return err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return []solver.Result{newResult(&tree{fs: out, what: m.v.Name()})}, nil
}

// diffOp is what a file system has beyond another that it was made of.
type diffOp struct {
	operation
	op *pb.DiffOp
}

func (d *diffOp) CacheMap(context.Context, solver.JobContext, int) (*solver.CacheMap, bool, error) {
	data, err := json.Marshal(struct {
		Type string
		Diff *pb.DiffOp
	}{"hull.diff.v1", d.op})
	return newCacheMap(digest.FromBytes(data), len(d.v.Inputs())), true, err
}

func (d *diffOp) Acquire(ctx context.Context) (solver.ReleaseFunc, error) { return d.b.acquire(ctx) }

func (d *diffOp) Exec(_ context.Context, _ solver.JobContext, inputs []solver.Result) ([]solver.Result, error) {
	at := func(i int64) (*builds.FS, error) {
		if i < 0 {
			return &builds.FS{}, nil
		}
		if i >= int64(len(inputs)) {
			return nil, errdef.Invalid("difference of input %d", i)
		}
		t, err := treeOf(inputs[i])
		if err == nil && t.fs == nil {
			err = errdef.NotImplemented("the difference of a directory of the client")
		}
		return t.fs, err
	}
	lower, err := at(d.op.Lower.GetInput())
	if err != nil {
		return nil, err
	}
	upper, err := at(d.op.Upper.GetInput())
	if err != nil {
		return nil, err
	}
	if !isPrefix(chains(lower.Layers), chains(upper.Layers)) || !isPrefix(lower.Snapshots, upper.Snapshots) ||
		len(lower.Snapshots) > 0 && len(lower.Layers) != len(upper.Layers) || len(lower.Layers) != len(upper.Layers) {
		return nil, errdef.NotImplemented("the difference of two file systems of which one was not made of the other")
	}
	out := &builds.FS{Snapshots: upper.Snapshots[len(lower.Snapshots):]}
	return []solver.Result{newResult(&tree{fs: out, what: d.v.Name()})}, nil
}

func isPrefix(short, long []string) bool {
	if len(short) > len(long) {
		return false
	}
	for i := range short {
		if short[i] != long[i] {
			return false
		}
	}
	return true
}

// acquire waits for a turn: more steps at once than this only take memory from each other.
func (b *Builder) acquire(ctx context.Context) (solver.ReleaseFunc, error) {
	select {
	case b.turns <- struct{}{}:
		return func() { <-b.turns }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
