package api

import (
	"net/http"
	"slices"
	"strconv"

	"hull/engine"
	"hull/errdef"
	"hull/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	wire "github.com/moby/moby/api/types/registry"
)

// registryReport is the answer of GET /hull/v1/registry/route and .../test, in Docker's manner of naming.
type registryReport struct {
	Name, Tag string
	Blocked   string         `json:",omitempty"`
	Serves    string         `json:",omitempty"`
	Hosts     []registryHost // in the order they are asked
}

type registryHost struct {
	URL, Why string
	Mirror   bool
	Can      []string
	Login    string
	User     string         `json:",omitempty"`
	Proxy    string         `json:",omitempty"`
	Steps    []registryStep `json:",omitempty"`
}

type registryStep struct {
	Name  string
	OK    bool
	Found string
	Took  int64 // nanoseconds
}

func (q *request) report(r *registry.Report) error {
	out := registryReport{r.Name, r.Tag, r.Blocked, r.Serves, make([]registryHost, 0, len(r.Hosts))}
	for _, h := range r.Hosts {
		host := registryHost{URL: h.URL, Why: h.Why, Mirror: h.Mirror, Can: notNil(h.Can), Login: h.Login, User: h.User, Proxy: h.Proxy}
		for _, s := range h.Steps {
			host.Steps = append(host.Steps, registryStep{s.Name, s.OK, s.Found, int64(s.Took)})
		}
		out.Hosts = append(out.Hosts, host)
	}
	return q.answer(http.StatusOK, out)
}

func (s *server) registryRoute(q *request) error {
	r, err := s.engine.RegistryRoute(q.query("name"), engine.Remote{})
	if err != nil {
		return err
	}
	return q.report(r)
}

// registryOrigins is GET /hull/v1/registry/origins?dropped=1: the repositories that blobs of the store, or those it has not
// any more, came from.
func (s *server) registryOrigins(q *request) error {
	return q.answer(http.StatusOK, notNil(s.engine.Origins(q.flag("dropped"))))
}

func (s *server) registryTest(q *request) error {
	remote, err := q.remote(nil, q.query("name"))
	if err != nil {
		return err
	}
	r, err := s.engine.RegistryTest(q.Context(), q.query("name"), remote)
	if err != nil {
		return err
	}
	return q.report(r)
}

// registryManifest is GET /hull/v1/registry/manifest: the bytes as the registry has them.
func (s *server) registryManifest(q *request) error {
	remote, err := q.remote(nil, q.query("name"))
	if err != nil {
		return err
	}
	d, err := s.engine.Distribution(q.Context(), q.query("name"), remote)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, struct {
		Digest, MediaType string
		Manifest          []byte
	}{string(d.Digest), d.MediaType, d.Manifest})
}

// distribution is GET /distribution/{name...}/json.
func (s *server) distribution(q *request) error {
	remote, err := q.remote(nil, q.name)
	if err != nil {
		return err
	}
	d, err := s.engine.Distribution(q.Context(), q.name, remote)
	if err != nil {
		return err
	}
	out := wire.DistributionInspect{
		Descriptor: ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: int64(len(d.Manifest))},
		Platforms:  []ocispec.Platform{},
	}
	for _, p := range d.Platforms {
		out.Platforms = append(out.Platforms, ocispec.Platform{
			OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.Version, OSFeatures: p.Features,
		})
	}
	return q.answer(http.StatusOK, out)
}

// The numbers of results a search may ask for, as in Docker.
const (
	defaultSearch = 25
	maxSearch     = 100
)

// search is GET /images/search.
func (s *server) search(q *request) error {
	limit, err := q.number("limit", defaultSearch)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = defaultSearch
	}
	if limit < 1 || limit > maxSearch {
		return errdef.Invalid("limit %d is outside the range of [1, %d]", limit, maxSearch)
	}
	wanted, err := q.searchFilters()
	if err != nil {
		return err
	}
	term := q.query("term")
	if term == "" {
		return errdef.Invalid("there is no term to search for")
	}
	remote, err := q.remote(nil, searched(term))
	if err != nil {
		return err
	}
	found, err := s.engine.Search(q.Context(), term, limit, remote)
	if err != nil {
		return err
	}
	out := []wire.SearchResult{}
	for _, f := range found {
		if wanted(f) {
			out = append(out, wire.SearchResult{Name: f.Name, Description: f.Description, StarCount: f.Stars, IsOfficial: f.Official})
		}
	}
	return q.answer(http.StatusOK, out)
}

// searched is a name in the registry that a term is about, for which credentials are.
func searched(term string) string {
	for i, c := range term {
		if c == '/' {
			return term[:i] + "/x"
		}
	}
	return "x"
}

// searchFilters are is-official, is-automated and stars.
func (q *request) searchFilters() (func(registry.Found) bool, error) {
	filters, err := q.filters()
	if err != nil {
		return nil, err
	}
	official, stars, automated := filters["is-official"], filters["stars"], filters["is-automated"]
	for key := range filters {
		if !slices.Contains([]string{"is-official", "stars", "is-automated"}, key) {
			return nil, errdef.Invalid("invalid filter '%s'", key)
		}
	}
	least := 0
	for _, v := range stars {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, errdef.Invalid("invalid filter 'stars=%s'", v)
		}
		least = max(least, n)
	}
	for _, v := range append(slices.Clone(official), automated...) {
		if _, err := strconv.ParseBool(v); err != nil {
			return nil, errdef.Invalid("invalid filter value %q: want true or false", v)
		}
	}
	return func(f registry.Found) bool {
		if len(official) > 0 && !slices.Contains(official, strconv.FormatBool(f.Official)) {
			return false
		}
		return f.Stars >= least && (len(automated) == 0 || slices.Contains(automated, "false"))
	}, nil
}
