package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// User is a container that uses an image.
type User struct {
	ID      string
	Running bool
}

// RemoveOptions are for Remove.
type RemoveOptions struct {
	Force   bool
	NoPrune bool                   // kept for Docker's sake: images here have no parents
	InUse   func(id string) []User // the containers made from the image id; nil means none
	// Kept is as in Store, and comes first; without both there are no containers.
	Kept func() (map[string]bool, error)
	By   string // the command, for the log of references; "" is "rmi"
}

// Deleted is one line of `hull rmi`: exactly one of the fields is set.
type Deleted struct {
	Untagged string
	Deleted  string
}

// Remove takes the reference name away and, when it was the last one, the image; name may be an id. It refuses
// what Docker refuses, in Docker's words. Layers go when neither image nor container needs them any more.
func (s *Store) Remove(ctx context.Context, name string, opts RemoveOptions) ([]Deleted, error) {
	if _, _, ok, _ := ref.Cut(name); ok {
		return nil, errdef.Invalid("%s is a place in a log and cannot be removed; remove the image by its id", name)
	}
	f, err := s.find(name)
	if err != nil {
		return nil, err
	}
	rm := removal{s: s, opts: opts, name: name}
	if rm.opts.InUse == nil {
		rm.opts.InUse = func(string) []User { return nil }
	}
	garbage, err := s.expectGarbage()
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, func() error {
		if f, err = s.find(name); err != nil { // again: it may have changed before we had the lock
			return err
		}
		return rm.run(f)
	})
	if rm.gone == "" {
		if !rm.unlisted {
			os.Remove(garbage)
		}
		return rm.done, err
	}
	kept := opts.Kept
	if kept == nil {
		kept = s.Kept
	}
	swept, sweepErr := s.Sweep(ctx, kept)
	err = errors.Join(err, sweepErr)
	for _, chain := range slices.Backward(rm.chain) {
		if slices.Contains(swept, chain) {
			rm.done = append(rm.done, Deleted{Deleted: chain})
		}
	}
	return rm.done, err
}

// removal is one Remove under way.
type removal struct {
	s    *Store
	opts RemoveOptions
	name string // as the person gave it
	done []Deleted
	// unlisted says that an image is no longer listed, though a power cut may bring it back: its blobs are left to a
	// later sweep.
	unlisted bool
	gone     string   // the id of the removed image
	chain    []string // its layers
}

func (rm *removal) run(f found) error {
	if f.ref != "" {
		r, err := ref.Parse(f.ref)
		if err != nil {
			return err
		}
		if _, err := rm.s.readRef(r); err == nil {
			return rm.byRef(r)
		}
		f.id = rm.s.idOf(f.target) // name@digest without a reference of its own
	}
	return rm.byID(f.id)
}

// byRef removes one reference, and the image with the last one.
func (rm *removal) byRef(r ref.Ref) error {
	target, err := rm.s.readRef(r)
	if err != nil {
		return err
	}
	id := rm.s.idOf(target)
	if id == "" { // damaged: there is nothing behind the name
		rm.gone = string(target)
		return rm.untag(r)
	}
	users := rm.opts.InUse(id)
	names := rm.s.named()[id]
	if !rm.opts.Force && single(names) && len(users) > 0 {
		return errdef.Conflict("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			rm.name, short(users[0].ID), short(id))
	}
	if err := rm.untag(r); err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n name) bool { return n.ref == r })
	if !slices.ContainsFunc(names, func(n name) bool { return n.ref.Name() == r.Name() && n.ref.Tag != "" }) {
		// Digests alone do not keep a repository.
		for _, n := range names {
			if n.ref.Name() != r.Name() {
				continue
			}
			if err := rm.untag(n.ref); err != nil {
				return err
			}
		}
		names = slices.DeleteFunc(names, func(n name) bool { return n.ref.Name() == r.Name() })
	}
	if len(names) > 0 || len(users) > 0 && (!rm.opts.Force || running(users) != nil) {
		return nil // untagged is what was asked; the image stays, without a name, for its containers
	}
	return rm.remove(id)
}

// byID removes an image with all its references, if they are in one repository.
func (rm *removal) byID(id string) error {
	names := rm.s.named()[id]
	users := rm.opts.InUse(id)
	refuse := func(how, why string) error {
		return errdef.Conflict("conflict: unable to delete %s (%s) - %s", short(id), how, why)
	}
	if u := running(users); u != nil {
		return refuse("cannot be forced", "image is being used by running container "+short(u.ID))
	}
	if !rm.opts.Force && !single(names) {
		return refuse("must be forced", "image is referenced in multiple repositories")
	}
	if !rm.opts.Force && len(users) > 0 {
		return refuse("must be forced", "image is being used by stopped container "+short(users[0].ID))
	}
	for _, n := range names {
		if err := rm.untag(n.ref); err != nil {
			return err
		}
	}
	return rm.remove(id)
}

func (rm *removal) untag(r ref.Ref) error {
	if err := rm.s.changeRef(orDefault(rm.opts.By, "rmi"), refChange{ref: r}); err != nil {
		return err
	}
	rm.done = append(rm.done, Deleted{Untagged: r.Familiar()})
	return nil
}

// remove takes the image out of the list. From here on its blobs and layers are garbage.
func (rm *removal) remove(id string) error {
	if img, err := rm.s.open(found{id: id}); err == nil {
		for _, l := range img.Layers {
			rm.chain = append(rm.chain, l.ChainID)
		}
	}
	err := os.Remove(rm.s.recordPath(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	rm.unlisted = true
	if err := state.SyncDir(rm.s.imagesDir()); err != nil {
		return err
	}
	rm.gone = id
	rm.done = append(rm.done, Deleted{Deleted: id})
	return nil
}

// single says whether there is one tag at most and all references are of one repository.
func single(names []name) bool {
	tags := 0
	for _, n := range names {
		if n.ref.Tag != "" {
			tags++
		}
		if n.ref.Name() != names[0].ref.Name() {
			return false
		}
	}
	return tags <= 1
}

func running(users []User) *User {
	for i := range users {
		if users[i].Running {
			return &users[i]
		}
	}
	return nil
}

func short(id string) string {
	if d, err := ref.ParseDigest(id); err == nil {
		return d.Short()
	}
	return id[:min(12, len(id))]
}
