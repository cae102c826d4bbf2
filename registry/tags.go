package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// What a list may have.
const (
	maxPage  = 4 << 20 // bytes of a page
	maxPages = 1000
	maxList  = 64 << 20 // bytes of all pages
)

// Tags lists the tags of the repository, in the order of the registry.
func (r *Repository) Tags(ctx context.Context) (tags []string, err error) {
	err = r.each(ctx, func(h *host) error {
		tags = nil
		return h.pages(ctx, h.repo("tags", "list"), h.pullScope(), func(page []byte) error {
			var list struct{ Tags []string }
			if err := json.Unmarshal(page, &list); err != nil {
				return final("%s sends a list of tags that is no JSON", h.place.Addr)
			}
			tags = append(tags, list.Tags...)
			return nil
		})
	})
	return tags, r.refused("", err)
}

// pages reads a list page by page. Each page is at the host itself, and none comes twice.
func (h *host) pages(ctx context.Context, u *url.URL, scope string, each func(page []byte) error) error {
	u.RawQuery = "n=1000"
	sum := 0
	bounded := func(page []byte) error {
		if sum += len(page); sum > maxList {
			return final("%s has more than %d bytes of that list", h.place.Addr, maxList)
		}
		return each(page)
	}
	for range maxPages {
		next, err := h.page(ctx, u, scope, bounded)
		if err != nil || next == nil {
			return err
		}
		u = next
	}
	return final("%s has more than %d pages of that list", h.place.Addr, maxPages)
}

func (h *host) page(ctx context.Context, u *url.URL, scope string, each func(page []byte) error) (next *url.URL, err error) {
	resp, err := h.do(ctx, h.get(u, scope))
	if err != nil {
		return nil, err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, h.answerError(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read list: %w", h.place.Addr, err)
	}
	if len(data) > maxPage {
		return nil, final("%s sends a page of more than %d bytes", h.place.Addr, maxPage)
	}
	if err := each(data); err != nil {
		return nil, err
	}
	link := nextLink(resp.Header.Values("Link"))
	if link == "" {
		return nil, nil
	}
	if next, err = h.checked(link, u); err != nil {
		return nil, err
	}
	switch {
	case !sameOrigin(next, u):
		return nil, final("%s continues its list at %s: refused, as it is another host", h.place.Addr, next.Host)
	case next.String() == u.String():
		return nil, final("%s continues its list where it began", h.place.Addr)
	}
	return next, nil
}
