package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/ref"
)

// Found is one repository that a search found.
type Found struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
}

// indexAddr is where Docker Hub is searched.
const indexAddr = "index.docker.io"

// maxCatalog bounds how many repositories of a registry are looked through.
const maxCatalog = 100_000

// errEnough ends a list early.
var errEnough = errors.New("enough")

// Search asks a registry, called as in references, for at most limit repositories whose names or descriptions have term in
// them. A registry that has no search is asked for the list of what it has.
func Search(ctx context.Context, server, term string, limit int, o Options) ([]Found, error) {
	places := o.Routes.upstream(ref.Ref{Registry: server})
	if server == ref.DefaultRegistry {
		for i := range places {
			places[i].Addr = indexAddr
		}
	}
	repo, err := openHosts(ref.Ref{Registry: server}, places, o)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	var found []Found
	err = repo.each(ctx, func(h *host) (err error) {
		found, err = h.index(ctx, term, limit)
		var e *Error
		if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusUnauthorized) {
			found, err = h.catalog(ctx, term, limit)
		}
		return err
	})
	var e *Error
	if errors.As(err, &e) {
		switch e.Status {
		case http.StatusNotFound, http.StatusMethodNotAllowed:
			return nil, errdef.NotImplemented("%s cannot be searched: it has neither /v1/search nor /v2/_catalog", server)
		case http.StatusUnauthorized, http.StatusForbidden:
			return nil, errdef.Forbidden("%s does not let us search it, it may need 'hull login %s': %w", server, server, e)
		}
	}
	return found, err
}

// index asks the search of Docker Hub and those that have the same.
func (h *host) index(ctx context.Context, term string, limit int) ([]Found, error) {
	u := &url.URL{Scheme: h.place.Scheme, Host: h.place.Addr, Path: "/v1/search", RawQuery: url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}.Encode()}
	resp, err := h.do(ctx, h.get(u, ""))
	if err != nil {
		return nil, err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, h.answerError(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("%s: read what was found: %w", h.place.Addr, err)
	}
	var out struct {
		Results []Found `json:"results"`
	}
	if json.Unmarshal(data, &out) != nil {
		return nil, &Error{Host: h.place.Addr, Status: http.StatusNotFound} // a page of a site, not a search
	}
	return out.Results[:min(limit, len(out.Results))], nil
}

// catalog looks through all names.
func (h *host) catalog(ctx context.Context, term string, limit int) (found []Found, err error) {
	seen := 0
	err = h.pages(ctx, h.url("_catalog"), "registry:catalog:*", func(page []byte) error {
		var list struct{ Repositories []string }
		if err := json.Unmarshal(page, &list); err != nil {
			return final("%s sends a list of repositories that is no JSON", h.place.Addr)
		}
		for _, name := range list.Repositories {
			if strings.Contains(name, term) {
				found = append(found, Found{Name: name})
			}
			if seen++; len(found) == limit || seen == maxCatalog {
				return errEnough
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}
