// Package registry talks to registries: it finds where a repository is to be asked for, logs in, and moves manifests and
// blobs in both directions.
//
//	repo, err := registry.Open(name, registry.Options{Routes: registry.NewRoutes(c), Credential: logins})
//	defer repo.Close()
//	data, mediaType, err := repo.Manifest(ctx, "latest")
//	r, at, err := repo.Blob(ctx, d, 0)
//
// What a registry says is untrusted: sizes are capped, waits bounded, digests compared where there is one to compare
// with, and what it sends us to elsewhere is reached without credentials and only at addresses it could have itself.
//
// Beware: the bytes of a blob are not verified here, because whoever resumes one hashes all of it anyway.
package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"hull/errdef"
	"hull/ref"
)

// Options of Open. All are optional.
type Options struct {
	// Routes say where registries are; nil asks each under its own name.
	Routes *Routes
	// Credential is what a person has for a registry, called as in references (docker.io), or for a mirror, host[:port].
	Credential func(registry string) Credential
	// Push opens a repository that is written to: mirrors are not asked.
	Push bool
	// Agent is what we call ourselves.
	Agent string
	// Proxy is as in http.Transport; nil goes directly.
	Proxy func(*http.Request) (*url.URL, error)
	// Notice is told in a sentence what takes time or was passed over; nil drops it. It may be called at any time, by
	// several goroutines.
	Notice func(string)

	// Backoff is how long the first wait before a retry takes, and Idle how long a connection may stay silent.
	Backoff, Idle time.Duration
}

// The waits when Options say nothing.
const (
	defaultBackoff = 250 * time.Millisecond
	defaultIdle    = time.Minute
)

// Repository is one repository, wherever its route leads. It is safe for concurrent use.
type Repository struct {
	name   ref.Ref // without tag and digest
	hosts  []*host // in the order they are asked
	notice func(string)
	peer   string // another engine, "" when it is a registry
	end    func() // closes what Close has to beside the connections of hosts; may be nil

	// mu protects the following.
	mu       sync.Mutex
	servedBy string
	uploads  map[ref.Digest]*url.URL // begun where a mount was asked for and not granted
}

// Open returns the repository of r, whose tag and digest do not matter. It asks nobody anything yet. The error says that
// r is blocked, or what is wrong with the route.
func Open(r ref.Ref, o Options) (*Repository, error) {
	route, err := o.Routes.Route(r)
	if err != nil {
		return nil, err
	}
	if route.Blocked != "" {
		return nil, errdef.Forbidden("%s is blocked: %s", r.FamiliarName(), route.Blocked)
	}
	r.Tag, r.Digest = "", ""
	return openHosts(r, route.Hosts, o)
}

func openHosts(r ref.Ref, places []Host, o Options) (*Repository, error) {
	repo := &Repository{name: r, notice: o.Notice, uploads: map[ref.Digest]*url.URL{}}
	if repo.notice == nil {
		repo.notice = func(string) {}
	}
	for _, place := range places {
		if o.Push && !place.Push || !o.Push && !place.Pull {
			continue
		}
		h, err := newHost(place, o)
		if err != nil {
			return nil, err
		}
		h.notice = repo.notice
		repo.hosts = append(repo.hosts, h)
	}
	if len(repo.hosts) == 0 {
		return nil, errdef.Forbidden("no host on the route of %s takes this request: hull registry test shows it", r.FamiliarName())
	}
	for _, h := range repo.hosts[:len(repo.hosts)-1] {
		if h.place.Mirror {
			h.tries = 2 // there is somebody else to ask
		}
	}
	return repo, nil
}

// Close drops the idle connections.
func (r *Repository) Close() {
	for _, h := range r.hosts {
		h.close()
	}
	if r.end != nil {
		r.end()
	}
}

// Name is the repository as people call it.
func (r *Repository) Name() string { return r.name.FamiliarName() }

// ServedBy is the host that served last, "" before one did.
func (r *Repository) ServedBy() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.servedBy
}

// each asks the hosts in turn until one serves. What the last one says counts: the others only stand before it.
func (r *Repository) each(ctx context.Context, ask func(*host) error) error {
	live := slices.DeleteFunc(slices.Clone(r.hosts), func(h *host) bool { return h.dead.Load() })
	if len(live) == 0 {
		live = r.hosts[len(r.hosts)-1:]
	}
	for i, h := range live {
		err := ask(h)
		if err == nil {
			r.mu.Lock()
			r.servedBy = h.place.Addr
			r.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		next := h.after(live[i+1:])
		if next == nil {
			return err
		}
		if errors.Is(err, errNoTags) {
			continue
		}
		if !h.met.Load() {
			h.dead.Store(true) // the next question goes past it
		}
		if next.place.Addr != h.place.Addr {
			r.notice(h.place.Addr + ": " + err.Error() + ": asking " + next.place.Addr)
		}
	}
	return nil
}

// after is who is asked after h, or nil. The same place without TLS is nobody to ask once it answered with it.
func (h *host) after(rest []*host) *host {
	for _, next := range rest {
		if next.place.Addr != h.place.Addr || !h.met.Load() {
			return next
		}
		next.dead.Store(true)
	}
	return nil
}
