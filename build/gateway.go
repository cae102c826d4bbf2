package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver"
	solvererrs "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/progress"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"hull/archive"
	"hull/errdef"
)

// bridge is what a frontend sees of us.
type bridge struct {
	j     *job
	attrs map[string]string
	depth int // of frontends that asked for a frontend
}

func newGateway(j *job, attrs map[string]string) *bridge { return &bridge{j: j, attrs: attrs} }

// Solve makes a reference of a graph. Nothing runs before the reference is asked for something, or Evaluate says so.
func (g *bridge) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	if req.Frontend != "" {
		return g.frontend(ctx, req)
	}
	res := gateway.NewResult()
	if req.Definition == nil || len(req.Definition.Def) == 0 {
		return res, nil
	}
	r := &ref{g: g, def: req.Definition}
	if req.Evaluate {
		if err := r.Evaluate(ctx); err != nil {
			return nil, err
		}
	}
	res.SetRef(r)
	return res, nil
}

// builtIn are the frontends that a Dockerfile may name in # syntax= and that ours stands for.
var builtIn = [...]string{"docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"}

// frontend answers "# syntax=": an image that would take over the build. The usual ones are what is linked in here.
func (g *bridge) frontend(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	source := req.FrontendOpt["source"]
	named, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return nil, errdef.Invalid("invalid frontend %q: %w", source, err)
	}
	if req.Frontend != "gateway.v0" || !slices.Contains(builtIn[:], reference.TrimNamed(named).Name()) {
		return nil, errdef.Forbidden("the Dockerfile wants to be built by the program in the image %s, which would see all of the context: hull builds docker/dockerfile itself and runs no others", source)
	}
	if g.depth > 0 {
		return nil, errdef.Invalid("frontend %s asks for itself", source)
	}
	return g.j.req.Frontend(ctx, &bridge{j: g.j, attrs: maps.Clone(req.FrontendOpt), depth: g.depth + 1})
}

// ResolveImageConfig returns reference, digest and configuration of an image.
func (g *bridge) ResolveImageConfig(ctx context.Context, name string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	platform, mode := "", ""
	if o := opt.ImageOpt; o != nil {
		mode = o.ResolveMode
		if o.Platform != nil {
			platform = platforms.Format(*o.Platform)
		}
	}
	var out []byte
	var d digest.Digest
	err := g.told(ctx, opt.LogName, name, func(ctx context.Context) error {
		img, err := g.j.image(ctx, name, platform, mode)
		if err != nil {
			return err
		}
		d = digest.Digest(img.Target)
		out, err = g.j.b.e.Images().Blob(img.ID)
		return err
	})
	return name, d, out, err
}

// ResolveSourceMetadata is ResolveImageConfig for sources of all kinds.
func (g *bridge) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	name, ok := strings.CutPrefix(op.Identifier, "docker-image://")
	if !ok {
		return &sourceresolver.MetaResponse{Op: op}, nil
	}
	if opt.ImageOpt == nil {
		opt.ImageOpt = &sourceresolver.ResolveImageOpt{}
	}
	_, d, config, err := g.ResolveImageConfig(ctx, name, opt)
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: d, Config: config}}, nil
}

// told shows f as a step of the build.
func (g *bridge) told(ctx context.Context, name, fallback string, f func(context.Context) error) error {
	if name == "" {
		name = "[internal] load metadata for " + fallback
	}
	return g.j.sj.InContext(ctx, func(ctx context.Context, _ solver.JobContext) error {
		return inVertex(ctx, name, f)
	})
}

// BuildOpts tells the frontend what it may ask for.
func (g *bridge) BuildOpts() gateway.BuildOpts {
	return gateway.BuildOpts{
		Opts: g.attrs, SessionID: g.j.req.ID, Product: "hull",
		Workers: []gateway.WorkerInfo{{ID: "hull", Platforms: []ocispecs.Platform{platforms.Normalize(platforms.DefaultSpec())}}},
		LLBCaps: pb.Caps.CapSet(pb.Caps.All()), Caps: gwpb.Caps.CapSet(gwpb.Caps.All()),
	}
}

// Inputs are graphs of the client; there are none.
func (g *bridge) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }

// NewContainer is for frontends that run something themselves.
func (g *bridge) NewContainer(context.Context, gateway.NewContainerRequest) (gateway.Container, error) {
	return nil, errdef.NotImplemented("containers of a frontend are not there yet")
}

// Warn shows a warning about a step.
func (g *bridge) Warn(ctx context.Context, d digest.Digest, msg string, opts gateway.WarnOpts) error {
	return g.j.sj.InContext(ctx, func(ctx context.Context, _ solver.JobContext) error {
		w, ok, _ := progress.NewFromContext(ctx, progress.WithMetadata("vertex", d))
		if !ok {
			return nil
		}
		err := w.Write(newID(), client.VertexWarning{
			Vertex: d, Level: opts.Level, Short: []byte(msg), SourceInfo: opts.SourceInfo, Range: opts.Range, Detail: opts.Detail, URL: opts.URL,
		})
		return errors.Join(err, w.Close())
	})
}

// ref is the end of a graph.
type ref struct {
	g   *bridge
	def *pb.Definition

	mu   sync.Mutex // protects the following; held while the graph is executed
	done bool
	t    *tree
	err  error
}

func (r *ref) tree(ctx context.Context) (*tree, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return r.t, r.err
	}
	t, err := r.solve(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, err // another caller may have more time
	}
	r.done, r.t, r.err = true, t, err
	return t, err
}

func (r *ref) solve(ctx context.Context) (*tree, error) {
	edge, err := load(r.def)
	if err != nil {
		return nil, err
	}
	res, err := r.g.j.sj.Build(ctx, edge)
	if err != nil {
		return nil, r.located(err)
	}
	return treeOf(res)
}

// located adds to an error the lines that made the step that failed.
func (r *ref) located(err error) error {
	var v *solvererrs.VertexError
	if !errors.As(err, &v) || r.def.Source == nil {
		return err
	}
	for _, l := range r.def.Source.Locations[v.Digest].GetLocations() {
		if i := int(l.SourceIndex); i >= 0 && i < len(r.def.Source.Infos) {
			err = solvererrs.WithSource(err, &solvererrs.Source{Info: r.def.Source.Infos[i], Ranges: l.Ranges})
		}
	}
	return err
}

// Evaluate executes the graph.
func (r *ref) Evaluate(ctx context.Context) error {
	_, err := r.tree(ctx)
	return err
}

// ToState is the graph, to be built upon.
func (r *ref) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(r.def)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

func (r *ref) with(ctx context.Context, f func(*view) error) error {
	t, err := r.tree(ctx)
	if err != nil {
		return err
	}
	return r.g.j.with(t, f)
}

// maxRead bounds what a frontend reads of a file at once.
const maxRead = 64 << 20

// ReadFile reads a file of the result.
func (r *ref) ReadFile(ctx context.Context, req gateway.ReadRequest) (data []byte, err error) {
	err = r.with(ctx, func(v *view) error {
		if data, err = v.readFile(req.Filename, maxRead); err != nil {
			return err
		}
		if x := req.Range; x != nil {
			data = data[min(max(x.Offset, 0), len(data)):]
			if x.Length > 0 {
				data = data[:min(x.Length, len(data))]
			}
		}
		return nil
	})
	return data, err
}

// StatFile describes a file of the result.
func (r *ref) StatFile(ctx context.Context, req gateway.StatRequest) (out *fstypes.Stat, err error) {
	err = r.with(ctx, func(v *view) error {
		out, err = v.stat(req.Path)
		return err
	})
	return out, err
}

// ReadDir lists a directory of the result.
func (r *ref) ReadDir(ctx context.Context, req gateway.ReadDirRequest) (out []*fstypes.Stat, err error) {
	err = r.with(ctx, func(v *view) error {
		rel, err := v.resolve(req.Path, true)
		if err != nil {
			return err
		}
		fd, err := v.open(rel, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return notThere(req.Path, err)
		}
		names, err := archive.Names(fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, n := range names {
			if p := req.IncludePattern; p != "" {
				if ok, err := path.Match(p, n); err != nil || !ok {
					continue
				}
			}
			st, err := v.stat(path.Join(req.Path, n))
			if err != nil {
				return err
			}
			out = append(out, st)
		}
		return nil
	})
	return out, err
}

func notThere(p string, err error) error { return &unixPathError{p, err} }

// unixPathError is what a frontend understands: errors.Is with os.ErrNotExist.
type unixPathError struct {
	path string
	err  error
}

func (e *unixPathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *unixPathError) Unwrap() error { return e.err }

// readFile reads a file of at most limit bytes. Links mean what they would in a container.
func (v *view) readFile(p string, limit int64) ([]byte, error) {
	rel, err := v.resolve(p, true)
	if err != nil {
		return nil, err
	}
	fd, err := v.open(rel, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, notThere(p, err)
	}
	f := newOSFile(fd, p)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errdef.Invalid("%s is not a regular file", p)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errdef.Invalid("%s is larger than %d bytes", p, limit)
	}
	return data, err
}

func (v *view) stat(p string) (*fstypes.Stat, error) {
	rel, err := v.resolve(p, false)
	if err != nil {
		return nil, err
	}
	fd, err := v.open(rel, unix.O_PATH)
	if err != nil {
		return nil, notThere(p, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	out := &fstypes.Stat{
		Path: path.Base(path.Join("/", p)), Mode: uint32(fileMode(st.Mode)), Uid: st.Uid, Gid: st.Gid, Size: st.Size, ModTime: st.Mtim.Nano(),
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var b [4096]byte
		n, err := unix.Readlinkat(fd, "", b[:])
		if err != nil {
			return nil, err
		}
		out.Linkname = string(b[:n])
	}
	return out, nil
}

// built executes what the frontend ended in and takes the result apart.
func (g *bridge) built(ctx context.Context, res *gateway.Result) (*Result, error) {
	out := &Result{Metadata: res.Metadata}
	ps, err := exptypes.ParsePlatforms(res.Metadata)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, err)
	}
	if len(res.Refs) == 0 {
		ps.Platforms = ps.Platforms[:min(1, len(ps.Platforms))]
	}
	out.FS = make([]*Built, len(ps.Platforms))
	eg, ctx := errgroup.WithContext(ctx)
	for i, p := range ps.Platforms {
		b := &Built{Platform: platforms.Format(p.Platform), Config: configOf(res.Metadata, p.ID)}
		out.FS[i] = b
		r, ok := res.FindRef(p.ID)
		if !ok || r == nil {
			continue
		}
		eg.Go(func() error {
			x, ok := r.(*ref)
			if !ok {
				return fmt.Errorf("unexpected reference %T", r)
			}
			t, err := x.tree(ctx)
			if err != nil {
				return err
			}
			if b.FS = t.fs; b.FS == nil {
				b.FS, err = g.j.copied(ctx, t)
			}
			return err
		})
	}
	return out, eg.Wait()
}

// configOf is the configuration of the image for a platform.
func configOf(metadata map[string][]byte, id string) []byte {
	if c, ok := metadata[exptypes.ExporterImageConfigKey+"/"+id]; ok {
		return c
	}
	return metadata[exptypes.ExporterImageConfigKey]
}
