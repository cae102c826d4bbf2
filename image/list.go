package image

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/ref"
)

// Summary is one line of `hull images`.
type Summary struct {
	ID          string
	RepoTags    []string // in familiar form ("busybox:latest"); empty when dangling
	RepoDigests []string
	Created     time.Time
	Size        int64
	Labels      map[string]string
	Pinned      bool
}

// List returns all images, newest first. What a killed process left is swept on the way.
func (s *Store) List(ctx context.Context) ([]Summary, error) {
	_ = s.repair(ctx) // that garbage stays is no reason not to list images
	return s.listed(ctx), ctx.Err()
}

// summaries is List without a sweep. It takes no lock: within update it is how things are.
func (s *Store) summaries() []Summary {
	records := s.records()
	names := s.namedOf(records)
	pins := s.pinned()
	list := make([]Summary, 0, len(records))
	for id, rec := range records {
		sum := Summary{ID: id, Created: rec.Created, Size: rec.Size, Labels: rec.Labels, Pinned: pins[id]}
		for _, n := range names[id] {
			if n.ref.Tag != "" {
				sum.RepoTags = append(sum.RepoTags, n.ref.Familiar())
			}
			sum.RepoDigests = append(sum.RepoDigests, n.ref.FamiliarName()+"@"+string(n.target))
		}
		slices.Sort(sum.RepoTags)
		slices.Sort(sum.RepoDigests)
		sum.RepoDigests = slices.Compact(sum.RepoDigests)
		list = append(list, sum)
	}
	slices.SortFunc(list, func(a, b Summary) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
	})
	return list
}

// name is a reference with what it names.
type name struct {
	ref    ref.Ref
	target ref.Digest
}

// named returns the references of each image id. Those of damaged images are under "".
func (s *Store) named() map[string][]name { return s.namedOf(nil) }

// namedOf is named for a caller who has read all records: what one of them names need not be read again.
func (s *Store) namedOf(records map[string]record) map[string][]name {
	ids := make(map[ref.Digest]string, len(records))
	for id, rec := range records {
		if rec.Manifest != "" && s.hasBlob(rec.Manifest) {
			ids[rec.Manifest] = id
		}
	}
	all := map[string][]name{}
	for r, target := range s.refs() {
		id, ok := ids[target]
		if !ok {
			id = s.idOf(target)
			ids[target] = id
		}
		all[id] = append(all[id], name{r, target})
	}
	return all
}

// idOf returns the id of the image that target leads to; "" if it is damaged.
func (s *Store) idOf(target ref.Digest) string {
	m, _, err := s.manifestOf(target)
	if err != nil {
		return ""
	}
	return string(m.Config.Digest)
}

// HistoryLine is one line of `hull history`.
type HistoryLine struct {
	ID string // of the image, on the first line; "<missing>" below
	History
	Size int64
	Tags []string
}

// History returns the steps that made the image name, newest first; platform is as in ResolveFor.
func (s *Store) History(ctx context.Context, name, platform string) ([]HistoryLine, error) {
	img, err := s.ResolveFor(ctx, name, platform)
	if err != nil {
		return nil, err
	}
	var lines []HistoryLine
	next := 0 // the next layer
	for _, h := range img.Config.History {
		line := HistoryLine{ID: "<missing>", History: h}
		if !h.EmptyLayer {
			if next == len(img.Layers) {
				return nil, errdef.Invalid("image %s: its history names more layers than it has", img.ID)
			}
			l, err := s.readLayer(img.Layers[next].ChainID)
			if err != nil {
				return nil, err
			}
			line.Size = l.Size
			next++
		}
		lines = append(lines, line)
	}
	slices.Reverse(lines)
	if len(lines) > 0 {
		lines[0].ID = img.ID
		for _, n := range s.named()[img.ID] {
			if n.ref.Tag != "" {
				lines[0].Tags = append(lines[0].Tags, n.ref.Familiar())
			}
		}
		slices.Sort(lines[0].Tags)
	}
	return lines, nil
}

// Names returns the references of the image id: tags and digests in familiar form, sorted.
func (s *Store) Names(id string) (tags, digests []string) {
	for _, n := range s.named()[id] {
		if n.ref.Tag != "" {
			tags = append(tags, n.ref.Familiar())
		}
		digests = append(digests, n.ref.FamiliarName()+"@"+string(n.target))
	}
	slices.Sort(tags)
	slices.Sort(digests)
	return tags, slices.Compact(digests)
}

// Tag lets the reference target name the image that source names. by is the command, for the log; "" is "tag".
func (s *Store) Tag(ctx context.Context, source, target, by string) error {
	r, err := ref.Parse(target)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return errdef.Invalid("refusing to create a tag with a digest reference")
	}
	lease, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Unlock()
	img, err := s.Resolve(ctx, source)
	if err != nil {
		return err
	}
	return s.update(ctx, func() error {
		// The record may have gone since: without one the reference would name nothing that is listed.
		if _, err := s.readRecord(img.ID); err != nil {
			if errors.Is(err, errdef.ErrNotFound) {
				return noSuchImage(source)
			}
			return err
		}
		return s.changeRef(orDefault(by, "tag"), refChange{r.Tagged(), ref.Digest(img.Target)})
	})
}
