// Package build executes builds: BuildKit's solver keeps graph, cache keys and what runs at once; what its vertices do is here,
// a file for each kind of operation, on our own store.
//
//	b := build.New(e)                                  // e is the engine: images, containers, the store
//	out, err := b.Solve(ctx, &build.Request{Frontend: dockerfile.Build, Locals: map[string]string{"context": "."}})
//
// A step (RUN) is a container, started as any other, whose writable layer becomes a snapshot; an instruction that only changes
// files works on an overlay mount that nobody else sees, so that the kernel resolves every name inside it. File systems are
// lists of directories (builds.FS); they become layers of an image only when they are exported, and then once.
//
// Beware: the words of a Dockerfile are the caller's, but what is in contexts and images was written by strangers. No link of
// theirs is followed outside of its tree: see mount.go.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver"

	"hull/builds"
	"hull/engine"
)

// Builder runs builds on one engine. It may run several at once, which share equal work.
type Builder struct {
	e     *engine.Engine
	store *builds.Store

	once   sync.Once // guards the following
	solver *solver.Solver

	mu   sync.Mutex // protects the following
	jobs map[string]*job
	sums map[string]*sums

	turns chan struct{} // holds an element for each step that runs
}

// New returns a builder. It does nothing until the first build.
func New(e *engine.Engine) *Builder {
	return &Builder{e: e, store: e.Builds(), jobs: map[string]*job{}, sums: map[string]*sums{}, turns: make(chan struct{}, max(4, 2*runtime.GOMAXPROCS(0)))}
}

// Request is one build.
type Request struct {
	ID string // "" makes one up
	// Frontend turns what the person wrote into a graph. It is given what Attrs say.
	Frontend gateway.BuildFunc
	Attrs    map[string]string
	// Locals are directories of this machine by the names that the frontend asks for: "context", "dockerfile", and named ones.
	// Who may name a directory here may have every file in it that this process can read.
	Locals map[string]string
	// Secret returns the secret with the id. Kind errdef.ErrNotFound: there is none.
	Secret func(ctx context.Context, id string) ([]byte, error)
	// Agents are sockets of ssh agents by id.
	Agents map[string]string
	// Allow are the entitlements that steps may have: network.host, security.insecure.
	Allow []string
	// Tags are names for the image; none leaves it without. By is the command, for their logs.
	Tags []string
	By   string
	// Epoch, when set, is the time of everything that has the time of the build.
	Epoch *time.Time
	// Remote has the credentials for pulls.
	Remote engine.Remote
	// Status is told what happens, until Solve returns. It may be nil.
	Status func(*client.SolveStatus)
	// Output says what becomes of the result; nil: an image in the store.
	Output Output
}

// Output takes the result of a build.
type Output func(ctx context.Context, r *Result) error

// Result is what a build made.
type Result struct {
	ID       string // of the build
	Image    string // id of the image; "" when none was made
	Manifest string // digest
	Metadata map[string][]byte
	FS       []*Built // one for each platform
}

// Built is the file system of one platform.
type Built struct {
	Platform string
	FS       *builds.FS
	Config   []byte // of the image; nil when there is none
}

// job is a build under way, as its operations see it.
type job struct {
	b     *Builder
	req   *Request
	build *builds.Build
	sj    *solver.Job

	mu     sync.Mutex // protects images; held while one is looked up
	images map[string]found
}

// Solve runs a build to its end. When ctx ends, so do its steps.
func (b *Builder) Solve(ctx context.Context, req *Request) (_ *Result, err error) {
	if req.ID == "" {
		req.ID = identity.NewID()
	}
	if err := b.e.Ready(); err != nil {
		return nil, err
	}
	b.once.Do(b.open)
	running, err := b.store.Begin(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, running.Close()) }()
	sj, err := b.solver.NewJob(req.ID)
	if err != nil {
		return nil, err
	}
	defer sj.Discard()
	sj.SessionID = req.ID
	j := &job{b: b, req: req, build: running, sj: sj, images: map[string]found{}}
	b.mu.Lock()
	b.jobs[req.ID] = j
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.jobs, req.ID)
		b.mu.Unlock()
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	told := make(chan struct{})
	status := make(chan *client.SolveStatus)
	go func() {
		defer close(told)
		for s := range status {
			if req.Status != nil {
				req.Status(s)
			}
		}
	}()
	watching := make(chan error, 1)
	go func() { watching <- sj.Status(context.WithoutCancel(ctx), status) }()
	defer func() {
		sj.CloseProgress()
		if e := <-watching; err == nil && e != nil && !errors.Is(e, io.EOF) {
			err = e
		}
		<-told
	}()
	return j.run(ctx)
}

// newID makes up an id.
func newID() string { return identity.NewID() }

func (b *Builder) open() {
	b.solver = solver.NewSolver(solver.SolverOpt{
		ResolveOpFunc: b.op,
		DefaultCache:  solver.NewCacheManager(context.Background(), "local", newKeys(b.store), &results{b}),
	})
}

// job returns the build under way that has the id; operations that several builds share have the first of them.
func (b *Builder) job(id string) (*job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.jobs[id]; j != nil {
		return j, nil
	}
	return nil, fmt.Errorf("the build %s has ended", id)
}

func (j *job) run(ctx context.Context) (*Result, error) {
	gw := newGateway(j, maps.Clone(j.req.Attrs))
	res, err := j.req.Frontend(ctx, gw)
	if err != nil {
		return nil, err
	}
	out, err := gw.built(ctx, res)
	if err != nil {
		return nil, err
	}
	out.ID = j.req.ID
	if j.req.Output != nil {
		return out, j.req.Output(ctx, out)
	}
	return out, j.sj.InContext(ctx, func(ctx context.Context, _ solver.JobContext) error { return j.exportImage(ctx, out) })
}
