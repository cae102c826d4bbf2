package build

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"hull/errdef"
)

// vertex is one operation of a graph.
type vertex struct {
	op      *pb.Op
	options solver.VertexOptions
	inputs  []solver.Edge
	digest  digest.Digest
	name    string
}

func (v *vertex) Digest() digest.Digest         { return v.digest }
func (v *vertex) Sys() any                      { return v.op }
func (v *vertex) Options() solver.VertexOptions { return v.options }
func (v *vertex) Inputs() []solver.Edge         { return v.inputs }

func (v *vertex) Name() string {
	if name := v.options.Description["llb.customname"]; name != "" {
		return name
	}
	return v.name
}

// maxOps bounds the graph of one build.
const maxOps = 100_000

// load makes a graph of its definition and returns the edge that it ends in.
func load(def *pb.Definition) (solver.Edge, error) {
	if len(def.Def) == 0 {
		return solver.Edge{}, errdef.Invalid("the definition of the build is empty")
	}
	if len(def.Def) > maxOps {
		return solver.Edge{}, errdef.Invalid("the build has %d operations, more than %d", len(def.Def), maxOps)
	}
	l := loader{ops: map[digest.Digest]*pb.Op{}, done: map[digest.Digest]*vertex{}, loading: map[digest.Digest]bool{}, def: def}
	var last digest.Digest
	for _, data := range def.Def {
		op := new(pb.Op)
		if err := op.Unmarshal(data); err != nil {
			return solver.Edge{}, errdef.Invalid("an operation of the build cannot be read: %w", err)
		}
		last = digest.FromBytes(data)
		l.ops[last] = op
	}
	// The last one only names the output.
	end := l.ops[last]
	if len(end.Inputs) == 0 {
		return solver.Edge{}, errdef.Invalid("the build has no output")
	}
	v, err := l.vertex(digest.Digest(end.Inputs[0].Digest))
	if err != nil {
		return solver.Edge{}, err
	}
	return solver.Edge{Vertex: v, Index: solver.Index(end.Inputs[0].Index)}, nil
}

type loader struct {
	def     *pb.Definition
	ops     map[digest.Digest]*pb.Op
	done    map[digest.Digest]*vertex
	loading map[digest.Digest]bool
}

func (l *loader) vertex(d digest.Digest) (*vertex, error) {
	if v := l.done[d]; v != nil {
		return v, nil
	}
	op := l.ops[d]
	if op == nil {
		return nil, errdef.Invalid("the build has no operation %s", d)
	}
	if l.loading[d] { // a digest that contains itself: nobody can make one
		return nil, errdef.Invalid("operation %s needs itself", d)
	}
	l.loading[d] = true
	v := &vertex{op: op, digest: d}
	if md := l.def.Metadata[string(d)]; md != nil {
		v.options = solver.VertexOptions{IgnoreCache: md.IgnoreCache, Description: md.Description, ProgressGroup: md.ProgressGroup}
		if md.ExportCache != nil {
			v.options.ExportCache = &md.ExportCache.Value
		}
	}
	for _, in := range op.Inputs {
		if in.Index < 0 {
			return nil, errdef.Invalid("operation %s wants output %d", d, in.Index)
		}
		from, err := l.vertex(digest.Digest(in.Digest))
		if err != nil {
			return nil, err
		}
		v.inputs = append(v.inputs, solver.Edge{Index: solver.Index(in.Index), Vertex: from})
	}
	normalize(op)
	var err error
	if v.name, err = v.describe(); err != nil {
		return nil, err
	}
	l.done[d] = v
	return v, nil
}

// normalize writes platforms in one way, so that equal ones are.
func normalize(op *pb.Op) {
	p := platforms.DefaultSpec()
	if op.Platform != nil {
		p = ocispecs.Platform{OS: op.Platform.OS, Architecture: op.Platform.Architecture, Variant: op.Platform.Variant}
	}
	p = platforms.Normalize(p)
	op.Platform = &pb.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
}

// describe is what people read of an operation without a name.
func (v *vertex) describe() (string, error) {
	switch op := v.op.Op.(type) {
	case *pb.Op_Source:
		return op.Source.Identifier, nil
	case *pb.Op_Exec:
		if op.Exec.Meta == nil {
			return "", errdef.Invalid("operation %s runs nothing", v.digest)
		}
		return strings.Join(op.Exec.Meta.Args, " "), nil
	case *pb.Op_File:
		if len(op.File.Actions) == 0 {
			return "", errdef.Invalid("operation %s does nothing", v.digest)
		}
		var names []string
		for _, a := range op.File.Actions {
			names = append(names, describeAction(a))
		}
		return strings.Join(names, ", "), nil
	case *pb.Op_Merge:
		return "merge", nil
	case *pb.Op_Diff:
		return "diff", nil
	}
	return fmt.Sprintf("%T", v.op.Op), nil
}

func describeAction(a *pb.FileAction) string {
	switch a := a.Action.(type) {
	case *pb.FileAction_Copy:
		return "copy " + a.Copy.Src + " " + a.Copy.Dest
	case *pb.FileAction_Mkdir:
		return "mkdir " + a.Mkdir.Path
	case *pb.FileAction_Mkfile:
		return "mkfile " + path.Clean(a.Mkfile.Path)
	case *pb.FileAction_Rm:
		return "rm " + a.Rm.Path
	case *pb.FileAction_Symlink:
		return "symlink " + a.Symlink.Newpath
	}
	return "unknown"
}

// op is the solver's question what a vertex does.
func (b *Builder) op(v solver.Vertex, _ solver.Builder) (solver.Op, error) {
	op, ok := v.Sys().(*pb.Op)
	if !ok {
		return nil, fmt.Errorf("unexpected vertex %T", v.Sys())
	}
	base := operation{b: b, v: v, op: op}
	switch x := op.Op.(type) {
	case *pb.Op_Source:
		return newSource(base, x.Source)
	case *pb.Op_Exec:
		return newExec(base, x.Exec)
	case *pb.Op_File:
		return newFile(base, x.File)
	case *pb.Op_Merge:
		return &mergeOp{base, x.Merge}, nil
	case *pb.Op_Diff:
		return &diffOp{base, x.Diff}, nil
	}
	return nil, errdef.NotImplemented("operations of the kind %T", op.Op)
}

// operation is what all kinds have.
type operation struct {
	b  *Builder
	v  solver.Vertex
	op *pb.Op
}

// job is the build for which the operation runs, one of those if several share it.
func (o *operation) job(jc solver.JobContext) (*job, error) { return o.jobOf(jc.Session()) }

func (o *operation) jobOf(g session.Group) (*job, error) {
	for it := g.SessionIterator(); ; {
		id := it.NextSession()
		if id == "" {
			return nil, fmt.Errorf("%s is of no build", o.v.Name())
		}
		if j, err := o.b.job(id); err == nil {
			return j, nil
		}
	}
}
