package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"

	"hull/builds"
	"hull/errdef"
)

// keys is the store's cache keys in the words of the solver. Keys that are of one build only, by their name, stay in memory.
type keys struct {
	solver.CacheKeyStorage // of those
	s                      *builds.Store
}

func newKeys(s *builds.Store) *keys { return &keys{solver.NewInMemoryCacheStorage(), s} }

// unique begins the digest of an operation that is never the same again; the solver hands it on to the name of the key.
const unique = "random:"

func passing(id string) bool { return strings.HasPrefix(id, unique) }

func (k *keys) Exists(id string) bool {
	if passing(id) {
		return k.CacheKeyStorage.Exists(id)
	}
	return k.s.HasKey(id)
}

// Walk yields nothing: the solver uses it to find results that are gone, at each start. Prune removes keys with their results,
// and what a power cut left is found when it is looked up.
func (k *keys) Walk(func(id string) error) error { return nil }

func (k *keys) WalkResults(id string, fn func(solver.CacheResult) error) error {
	if passing(id) {
		return k.CacheKeyStorage.WalkResults(id, fn)
	}
	return k.s.ResultsOf(id, func(result string, made time.Time) error {
		return fn(solver.CacheResult{ID: result, CreatedAt: made})
	})
}

func (k *keys) Load(id, resultID string) (out solver.CacheResult, err error) {
	err = k.WalkResults(id, func(r solver.CacheResult) error {
		if r.ID == resultID {
			out = r
		}
		return nil
	})
	if err == nil && out.ID == "" {
		err = solver.ErrNotFound
	}
	return out, err
}

func (k *keys) AddResult(id string, res solver.CacheResult) error {
	if passing(id) {
		return k.CacheKeyStorage.AddResult(id, res)
	}
	return k.s.AddResult(id, res.ID, res.CreatedAt)
}

func (k *keys) Release(resultID string) error { return k.s.Release(resultID) }

func (k *keys) WalkIDsByResult(resultID string, fn func(string) error) error {
	return k.s.KeysOf(resultID, fn)
}

func (k *keys) AddLink(id string, link solver.CacheInfoLink, target string) error {
	if passing(id) {
		return k.CacheKeyStorage.AddLink(id, link, target)
	}
	text, err := json.Marshal(link)
	if err != nil {
		return err
	}
	return k.s.Link(id, string(text), target)
}

func (k *keys) WalkLinks(id string, link solver.CacheInfoLink, fn func(id string) error) error {
	if passing(id) {
		return k.CacheKeyStorage.WalkLinks(id, link, fn)
	}
	text, err := json.Marshal(link)
	if err != nil {
		return err
	}
	return k.s.Links(id, func(l, to string) error {
		if l != string(text) {
			return nil
		}
		return fn(to)
	})
}

func (k *keys) HasLink(id string, link solver.CacheInfoLink, target string) bool {
	if passing(id) {
		return k.CacheKeyStorage.HasLink(id, link, target)
	}
	text, err := json.Marshal(link)
	return err == nil && k.s.Linked(id, string(text), target)
}

// WalkBacklinks gives links a digest that says which output they are of: the other stores of the solver do so too, and what is
// exported compares them.
func (k *keys) WalkBacklinks(id string, fn func(id string, link solver.CacheInfoLink) error) error {
	return k.s.Backlinks(id, func(text, from string) error {
		var link solver.CacheInfoLink
		if err := json.Unmarshal([]byte(text), &link); err != nil {
			return nil // of another version
		}
		link.Digest = digest.FromBytes(fmt.Appendf(nil, "%s@%d", link.Digest, link.Output))
		link.Output = 0
		return fn(from, link)
	})
}

// results are the store's results in the words of the solver.
type results struct{ b *Builder }

func (r *results) Save(res solver.Result, made time.Time) (solver.CacheResult, error) {
	t, ok := res.Sys().(*tree)
	if !ok {
		return solver.CacheResult{}, fmt.Errorf("unexpected result %T", res.Sys())
	}
	if t.fs == nil { // a directory of the client: its key is of this build only
		return solver.CacheResult{ID: identity.NewID(), CreatedAt: made}, nil
	}
	if t.result != "" {
		return solver.CacheResult{ID: t.result, CreatedAt: made}, nil
	}
	id := identity.NewID()
	err := r.b.store.PutResult(&builds.Result{ID: id, Created: made.UTC(), What: t.what, FS: *t.fs})
	return solver.CacheResult{ID: id, CreatedAt: made}, err
}

func (r *results) Load(_ context.Context, res solver.CacheResult) (solver.Result, error) {
	found, err := r.b.store.Result(res.ID)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, solver.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if !r.b.e.HasLayers(chains(found.FS.Layers)) {
		return nil, solver.ErrNotFound
	}
	return newResult(&tree{fs: &found.FS, what: found.What, result: found.ID}), nil
}

// LoadRemotes is for exports of the cache, which there are none of yet.
func (r *results) LoadRemotes(context.Context, solver.CacheResult, *compression.Config, session.Group) ([]*solver.Remote, error) {
	return nil, nil
}

func (r *results) Exists(ctx context.Context, id string) bool {
	_, err := r.Load(ctx, solver.CacheResult{ID: id})
	return err == nil
}

func chains(layers []builds.Layer) []string {
	out := make([]string, len(layers))
	for i, l := range layers {
		out[i] = l.Chain
	}
	return out
}

// tree is what an operation makes: a file system of the store, or a directory of the client.
type tree struct {
	fs     *builds.FS
	local  *local // instead of fs
	what   string // the operation, for people
	result string // id of the result that has it in the store; "" as long as there is none
}

// result is a tree as the solver holds it. It has nothing to release: what nobody names goes with the build.
type result struct {
	id string
	t  *tree
}

func newResult(t *tree) solver.Result { return &result{identity.NewID(), t} }

func (r *result) ID() string                    { return r.id }
func (r *result) Release(context.Context) error { return nil }
func (r *result) Sys() any                      { return r.t }
func (r *result) Clone() solver.Result          { return r }

func treeOf(r solver.Result) (*tree, error) {
	t, ok := r.Sys().(*tree)
	if !ok {
		return nil, fmt.Errorf("unexpected result %T", r.Sys())
	}
	return t, nil
}
