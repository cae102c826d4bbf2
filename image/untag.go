package image

import (
	"context"
	"slices"
	"time"

	"hull/errdef"
	"hull/ref"
)

// Untag takes names away from the image name, or all of its names if none are given, and returns those that are gone, in
// familiar form. The image stays, without a name if it was the last one.
func (s *Store) Untag(ctx context.Context, name string, names []string) (id string, gone []string, err error) {
	img, err := s.Resolve(ctx, name)
	if err != nil {
		return "", nil, err
	}
	err = s.update(ctx, func() error {
		have := s.named()[img.ID]
		list, err := chosenNames(have, name, names)
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := s.changeRef("untag", refChange{ref: r}); err != nil {
				return err
			}
			gone = append(gone, r.Familiar())
		}
		return nil
	})
	return img.ID, gone, err
}

// chosenNames finds each of names among those that the image has.
func chosenNames(have []name, image string, names []string) ([]ref.Ref, error) {
	var out []ref.Ref
	if len(names) == 0 {
		for _, n := range have {
			out = append(out, n.ref)
		}
		return out, nil
	}
	for _, s := range names {
		r, err := ref.Parse(s)
		if err != nil {
			return nil, err
		}
		r = r.Tagged()
		if !slices.ContainsFunc(have, func(n name) bool { return n.ref == r }) {
			return nil, errdef.NotFound("%s is no name of the image %s", r.Familiar(), image)
		}
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// LastTagged returns when a tag was last set to the image id; zero if it has no tag.
func (s *Store) LastTagged(id string) (last time.Time) {
	for _, n := range s.named()[id] {
		if n.ref.Tag == "" {
			continue
		}
		log, _, err := s.effectiveLog(n.ref)
		if err == nil && len(log) > 0 && log[len(log)-1].Time.After(last) {
			last = log[len(log)-1].Time
		}
	}
	return last
}
