package engine

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"hull/errdef"
	"hull/image"
	"hull/ref"
)

// referenced leaves of list the images that one of values names, and of their names those that one of values matches, as
// Docker does: a script may remove what it was shown. A value is a shell pattern for a name with its tag or without, or a
// place in a log, which leaves an image all its names.
func (e *Engine) referenced(ctx context.Context, list []image.Summary, values []string) ([]image.Summary, error) {
	var patterns []string
	var places []string // ids
	for _, v := range values {
		_, _, ok, err := ref.Cut(v)
		if err != nil {
			return nil, err
		}
		if ok {
			img, err := e.images().Resolve(ctx, v)
			if err != nil && !errors.Is(err, errdef.ErrNotFound) {
				return nil, err
			}
			if err == nil {
				places = append(places, img.ID)
			}
			continue
		}
		if _, err := path.Match(v, ""); err != nil {
			return nil, errdef.Invalid("invalid filter 'reference=%s'", clip(v))
		}
		patterns = append(patterns, v)
	}
	out := list[:0]
	for _, i := range list {
		if slices.Contains(places, i.ID) || leaveNames(&i, patterns) {
			out = append(out, i)
		}
	}
	return out, nil
}

// leaveNames takes the names away that no pattern matches, and says whether any is left. With a tag the digests of its
// repository stay.
func leaveNames(i *image.Summary, patterns []string) bool {
	i.RepoTags = slices.DeleteFunc(i.RepoTags, func(tag string) bool { return !matchesAny(tag, untagged(tag), patterns) })
	i.RepoDigests = slices.DeleteFunc(i.RepoDigests, func(digest string) bool {
		name, _, _ := strings.Cut(digest, "@")
		return !matchesAny(digest, name, patterns) &&
			!slices.ContainsFunc(i.RepoTags, func(tag string) bool { return untagged(tag) == name })
	})
	return len(i.RepoTags)+len(i.RepoDigests) > 0
}

// matchesAny matches a reference against shell patterns for the whole or for its name alone.
func matchesAny(whole, name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		all, _ := path.Match(p, whole)
		part, _ := path.Match(p, name)
		return all || part
	})
}
