package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"slices"

	"hull/ref"
)

// maxPage is how many entries a list has at most.
const maxPage = 10_000

func (r *request) tags() error {
	if !reads(r.Request) {
		return r.methods("GET, HEAD")
	}
	all, err := r.repo.Tags(r.Context())
	if err != nil {
		return as(err, nameUnknown)
	}
	return list(r.w, r.Request, all, func(page []string) any {
		return struct {
			Name string   `json:"name"`
			Tags []string `json:"tags"`
		}{r.name, page}
	})
}

func (h *handler) catalog(w http.ResponseWriter, q *http.Request) {
	all, err := h.s.Repositories(q.Context())
	if err == nil && !reads(q) {
		err = unsupported
	}
	if err == nil {
		err = list(w, q, all, func(page []string) any {
			return struct {
				Repositories []string `json:"repositories"`
			}{page}
		})
	}
	if err != nil {
		fail(w, err)
	}
}

// list answers with the page of all, which is sorted, that is asked for, and a link to the next one.
func list(w http.ResponseWriter, q *http.Request, all []string, body func([]string) any) error {
	n := maxPage
	if text := q.URL.Query().Get("n"); text != "" {
		given, err := strconv.Atoi(text)
		if err != nil || given < 0 {
			return unsupported.with("n=%.20s is no number of entries", text).status400()
		}
		n = min(n, given)
	}
	i, found := slices.BinarySearch(all, q.URL.Query().Get("last"))
	if found {
		i++
	}
	page := all[i:]
	if len(page) > n {
		page = page[:n]
		if n > 0 {
			next := url.Values{"n": {strconv.Itoa(n)}, "last": {page[n-1]}}
			w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, q.URL.EscapedPath(), next.Encode()))
		}
	}
	data, err := json.Marshal(body(append([]string{}, page...)))
	if err != nil {
		return err
	}
	reply(w, q, data)
	return nil
}

// status400 is p as the mistake of a client.
func (p *problem) status400() *problem { return &problem{http.StatusBadRequest, p.code, p.message} }

// referrers serves /v2/<name>/referrers/<digest>.
func (r *request) referrers() error {
	if !reads(r.Request) {
		return r.methods("GET, HEAD")
	}
	d, err := ref.ParseDigest(r.rest)
	if err != nil {
		return as(err, digestInvalid)
	}
	artifactType := r.URL.Query().Get("artifactType")
	data, err := r.repo.Referrers(r.Context(), d, artifactType)
	if err != nil {
		return err
	}
	if artifactType != "" {
		r.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	r.w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	reply(r.w, r.Request, data)
	return nil
}

// reply answers with JSON.
func reply(w http.ResponseWriter, q *http.Request, data []byte) {
	if !reads(q) {
		fail(w, unsupported)
		return
	}
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	if q.Method != http.MethodHead {
		w.Write(data)
	}
}
