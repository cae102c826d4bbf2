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
	// After, for Removal, are the names that will have been removed before, in this order.
	After []string
	// Save, when set, is told what is about to go, before any of it does. If it returns a function, it has seen to it
	// that Store.Saved names the roots from now on, so nothing becomes garbage; the function is called when the removal
	// has ended, and says whether anything went.
	Save func(*Removed) func(went bool)
}

// Deleted is one line of `hull rmi`: exactly one of the texts is set.
type Deleted struct {
	Untagged string
	Deleted  string
	Layer    bool  // what is deleted is a layer, not the image
	Size     int64 // of a layer, in bytes
}

// Remove takes the reference name away and, when it was the last one, the image; name may be an id. It refuses
// what Docker refuses, in Docker's words. Layers go when neither image nor container needs them any more.
func (s *Store) Remove(ctx context.Context, name string, opts RemoveOptions) ([]Deleted, error) {
	rm, f, err := s.removal(name, opts)
	if err != nil {
		return nil, err
	}
	garbage, err := s.expectGarbage()
	if err != nil {
		return nil, err
	}
	saved := false
	err = s.update(ctx, func() error {
		if f, err = s.find(name); err != nil { // again: it may have changed before we had the lock
			return err
		}
		if err := rm.plan(f); err != nil {
			return err
		}
		finish := rm.save()
		saved = finish != nil
		err := rm.apply()
		if saved {
			finish(len(rm.done) > 0)
		}
		return err
	})
	if rm.gone == "" || saved {
		if !rm.unlisted || saved {
			os.Remove(garbage)
		}
		return rm.done, err
	}
	swept, sweepErr := s.Sweep(ctx, rm.kept())
	err = errors.Join(err, sweepErr)
	for _, chain := range slices.Backward(rm.chain) {
		if slices.Contains(swept, chain) {
			rm.done = append(rm.done, Deleted{Deleted: chain, Layer: true})
		}
	}
	return rm.done, err
}

// Removal is what Remove would do, after the names that opts says were removed. Nothing changes.
func (s *Store) Removal(_ context.Context, name string, opts RemoveOptions) (*Pruned, error) {
	before := rehearsed{refs: map[ref.Ref]bool{}, ids: map[string]bool{}}
	for _, n := range opts.After {
		if rm, f, err := s.removal(n, opts); err == nil {
			rm.before = before
			if rm.plan(f) == nil { // else it will be refused, and nothing of it go
				before.add(rm)
			}
		}
	}
	rm, f, err := s.removal(name, opts)
	if err != nil {
		return nil, err
	}
	rm.before = before
	if err := rm.plan(f); err != nil {
		return nil, err
	}
	out := &Pruned{Deleted: rm.planned()}
	if rm.id == "" {
		return out, nil
	}
	g, err := s.own(rm.id, before.ids, rm.kept(), rm.roots())
	if err != nil {
		return nil, err
	}
	for _, chain := range slices.Backward(rm.chain) {
		if i := slices.IndexFunc(g.layers, func(l garbageLayer) bool { return l.chain == chain }); i >= 0 {
			out.Deleted = append(out.Deleted, Deleted{Deleted: chain, Layer: true, Size: g.layers[i].size})
		}
	}
	out.Bytes = g.bytes()
	return out, nil
}

// rehearsed is what will have gone before a removal that is only planned.
type rehearsed struct {
	refs map[ref.Ref]bool
	ids  map[string]bool
}

func (b *rehearsed) add(rm *removal) {
	for _, n := range rm.untag {
		b.refs[n.ref] = true
	}
	if rm.id != "" {
		b.ids[rm.id] = true
	}
}

// removal is one Remove under way: first a plan, which changes nothing, then its execution.
type removal struct {
	s    *Store
	opts RemoveOptions
	name string // as the person gave it

	before rehearsed // of a removal that is only planned

	untag   []name // the plan: references that go, in this order,
	id      string // then the image, unless it is "";
	damaged string // or instead of an image: what the reference named, where there is nothing behind it

	done []Deleted
	// unlisted says that an image is no longer listed, though a power cut may bring it back: its blobs are left to a
	// later sweep.
	unlisted bool
	gone     string   // the id of the removed image
	chain    []string // its layers
}

func (s *Store) removal(name string, opts RemoveOptions) (*removal, found, error) {
	if _, _, ok, _ := ref.Cut(name); ok {
		return nil, found{}, errdef.Invalid("%s is a place in a log and cannot be removed; remove the image by its id", name)
	}
	if opts.InUse == nil {
		opts.InUse = func(string) []User { return nil }
	}
	f, err := s.find(name)
	return &removal{s: s, opts: opts, name: name}, f, err
}

func (rm *removal) kept() func() (map[string]bool, error) {
	if rm.opts.Kept != nil {
		return rm.opts.Kept
	}
	return rm.s.Kept
}

// plan decides what goes with what f names.
func (rm *removal) plan(f found) error {
	rm.untag, rm.id, rm.damaged = nil, "", ""
	if f.ref != "" {
		r, err := ref.Parse(f.ref)
		if err != nil {
			return err
		}
		if rm.before.refs[r] {
			return noSuchImage(rm.name)
		}
		if _, err := rm.s.readRef(r); err == nil {
			return rm.byRef(r)
		}
		f.id = rm.s.idOf(f.target) // name@digest without a reference of its own
	}
	if rm.before.ids[f.id] {
		return noSuchImage(rm.name)
	}
	return rm.byID(f.id)
}

// byRef plans to remove one reference, and the image with the last one.
func (rm *removal) byRef(r ref.Ref) error {
	target, err := rm.s.readRef(r)
	if err != nil {
		return err
	}
	rm.untag = append(rm.untag, name{r, target})
	id := rm.s.idOf(target)
	if id == "" { // damaged: there is nothing behind the name
		rm.damaged = string(target)
		return nil
	}
	users := rm.opts.InUse(id)
	names := rm.names(id)
	if !rm.opts.Force && single(names) && len(users) > 0 {
		return errdef.Conflict("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			rm.name, short(users[0].ID), short(id))
	}
	names = slices.DeleteFunc(names, func(n name) bool { return n.ref == r })
	if !slices.ContainsFunc(names, func(n name) bool { return n.ref.Name() == r.Name() && n.ref.Tag != "" }) {
		// Digests alone do not keep a repository.
		for _, n := range names {
			if n.ref.Name() == r.Name() {
				rm.untag = append(rm.untag, n)
			}
		}
		names = slices.DeleteFunc(names, func(n name) bool { return n.ref.Name() == r.Name() })
	}
	if len(names) > 0 || len(users) > 0 && (!rm.opts.Force || running(users) != nil) {
		return nil // untagged is what was asked; the image stays, without a name, for its containers
	}
	return rm.remove(id)
}

// byID plans to remove an image with all its references, if they are in one repository.
func (rm *removal) byID(id string) error {
	names := rm.names(id)
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
	rm.untag = append(rm.untag, names...)
	return rm.remove(id)
}

// names are the references of the image, without those that will have gone before.
func (rm *removal) names(id string) []name {
	return slices.DeleteFunc(rm.s.named()[id], func(n name) bool { return rm.before.refs[n.ref] })
}

func (rm *removal) remove(id string) error {
	if !rm.opts.Force {
		if err := rm.s.refusePinned(id); err != nil {
			return err
		}
	}
	rm.id, rm.chain = id, nil
	if img, err := rm.s.open(found{id: id}); err == nil {
		for _, l := range img.Layers {
			rm.chain = append(rm.chain, l.ChainID)
		}
	}
	return nil
}

// planned is the plan in the words of what will have been done.
func (rm *removal) planned() []Deleted {
	var out []Deleted
	for _, n := range rm.untag {
		out = append(out, Deleted{Untagged: n.ref.Familiar()})
	}
	if rm.id != "" {
		out = append(out, Deleted{Deleted: rm.id})
	}
	return out
}

// applyAll carries plans out one after the other, and says what is gone also when one fails.
func applyAll(plans []*removal) (done []Deleted, err error) {
	for _, rm := range plans {
		err := rm.apply()
		done = append(done, rm.done...)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// apply carries out the plan. It is called within update.
func (rm *removal) apply() error {
	for _, n := range rm.untag {
		if err := rm.s.changeRef(orDefault(rm.opts.By, "rmi"), refChange{ref: n.ref}); err != nil {
			return err
		}
		rm.done = append(rm.done, Deleted{Untagged: n.ref.Familiar()})
	}
	if rm.id == "" {
		rm.gone = rm.damaged
		return nil
	}
	if err := rm.s.unpin(rm.id); err != nil {
		return err
	}
	// It is taken out of the list: from here on its blobs and layers are garbage.
	err := os.Remove(rm.s.recordPath(rm.id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	rm.unlisted = true
	if err := state.SyncDir(rm.s.imagesDir()); err != nil {
		return err
	}
	rm.gone = rm.id
	rm.done = append(rm.done, Deleted{Deleted: rm.id})
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
