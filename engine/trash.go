package engine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/ref"
	"hull/trash"

	"golang.org/x/sys/unix"
)

// What a person removes goes into the trash for a while: save.go is the way in, undo.go the way back. What removes itself
// at its end, and what a prune takes, is removed for good, and so is everything on a disk that is nearly full.

// The limits where the settings say nothing.
const (
	trashKeep  = 24 * time.Hour
	trashSize  = 10 << 30
	trashCount = 1000
	// reserve is what the trash leaves free of a disk, at most.
	reserve = 512 << 20
)

// volumePart is what the directory of a volume is called in the trash; that of a container is called by its id, as the
// definition in it expects.
const (
	volumePart  = "volume"
	volumesPart = "volumes" // the anonymous volumes that went with a container
)

func (e *Engine) trash() *trash.Store {
	s := trash.Open(e.root)
	s.Discard = e.discard
	return s
}

// trashLimits are those of now. on is false when nothing is to be kept, or there is no room for it. Settings that cannot
// be read are no reason not to remove: then the defaults hold.
func (e *Engine) trashLimits() (l trash.Limits, on bool) {
	free, all := trash.Space(e.root)
	l = trash.Limits{Keep: trashKeep, Size: min(all/10, trashSize), Count: trashCount, Free: min(all/50, reserve)}
	if c, err := e.Config(); err == nil {
		if c.Trash.Keep != nil {
			l.Keep = *c.Trash.Keep
		}
		if c.Trash.Size > 0 {
			l.Size = c.Trash.Size
		}
	}
	return l, l.Keep > 0 && free >= l.Free
}

// tidyTrash removes what has been there for too long, or is too much.
func (e *Engine) tidyTrash(ctx context.Context, measure func(*trash.Item) int64) error {
	e.sweepTrash()
	l, _ := e.trashLimits()
	gone, err := e.trash().Tidy(ctx, l, measure)
	if len(gone) > 0 {
		err = errors.Join(err, e.images().Collect(ctx))
	}
	return err
}

// roomy calls f, and once more if the disk was full and the trash has made room.
func (e *Engine) roomy(ctx context.Context, f func() error) error {
	err := f()
	if errors.Is(err, unix.ENOSPC) && e.makeRoom(ctx) {
		err = f()
	}
	return err
}

// makeRoom removes what is in the trash for good, the oldest first, while the disk is as good as full, and says whether
// there was any.
func (e *Engine) makeRoom(ctx context.Context) bool {
	l, _ := e.trashLimits()
	if free, _ := trash.Space(e.root); free >= l.Free {
		return false
	}
	gone, _ := e.trash().Tidy(ctx, l, nil)
	if len(gone) > 0 {
		_ = e.images().Collect(ctx) // or the next list does
	}
	return len(gone) > 0
}

// sweepTrash finishes the removals, and takes back the restores, that killed processes began.
func (e *Engine) sweepTrash() { e.trash().Sweep(e.settleTrash) }

// settleTrash puts an entry in order that somebody left, and says whether the thing is in it.
func (e *Engine) settleTrash(t *trash.Entry, out bool) bool {
	switch kind, id := e.contentOf(&t.Item); {
	case kind == trash.Container && out:
		return e.settleRestore(t, id)
	case kind == trash.Container:
		return e.settleSaved(t, id)
	case kind == trash.Volume:
		return true
	}
	if t.Kind != trash.Image || t.Damaged != "" {
		return false
	}
	if out {
		return true // what it has put back already is no obstacle for the next one
	}
	r, err := removedImage(&t.Item)
	return err == nil && e.images().Gone(r)
}

// contentOf looks at what is there, whatever the record says: the id of a container, or "".
func (e *Engine) contentOf(i *trash.Item) (kind, id string) {
	if _, err := os.Lstat(i.Path(volumePart)); err == nil {
		return trash.Volume, ""
	}
	names, _ := readNames(i.Path(""))
	for _, n := range names {
		if isID(n) {
			return trash.Container, n
		}
	}
	return "", ""
}

// mend fills in what a record that a power cut has taken said, from what it was about.
func (e *Engine) mend(i *trash.Item) *trash.Item {
	if i.Damaged == "" {
		return i
	}
	kind, id := e.contentOf(i)
	switch kind {
	case trash.Container:
		r, err := e.readRecord(i.Path(id))
		if err != nil {
			return i
		}
		i.Record = *containerRecord(r)
	case trash.Volume:
		v, err := e.volumes().Look(i.Path(volumePart))
		if err != nil {
			return i
		}
		i.Record = trash.Record{Kind: trash.Volume, Name: v.Name}
	default:
		return i
	}
	fi, err := os.Lstat(i.Path(""))
	if err == nil {
		i.Removed = fi.ModTime()
	}
	i.Size, i.Damaged = -1, ""
	return i
}

func removedImage(i *trash.Item) (*image.Removed, error) {
	r := new(image.Removed)
	if err := json.Unmarshal(i.Detail, r); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, err)
	}
	return r, nil
}

// savedRoots are the digests of the images in the trash.
func (e *Engine) savedRoots() ([]ref.Digest, error) {
	list, err := e.trash().All()
	var roots []ref.Digest
	for _, i := range list {
		if i.Kind != trash.Image {
			continue
		}
		if r, err := removedImage(i); err == nil {
			roots = append(roots, r.Roots()...)
		}
	}
	return roots, err
}

// savedLayers adds the layers of the containers in the trash to kept.
func (e *Engine) savedLayers(kept map[string]bool) error {
	list, err := e.trash().All()
	for _, i := range list {
		for _, l := range e.mend(i).Layers {
			kept[l] = true
		}
	}
	return err
}

// Trashed is one thing in the trash.
type Trashed struct {
	Number  int // the highest is the last removal
	Kind    string
	ID      string // of a container or an image
	Name    string // of a container or a volume; the references of an image
	Size    int64  // bytes that are free without it
	Removed time.Time
	Expires time.Time
	By      string // the command that removed it
	Damaged string // why it can only be removed for good
}

// Trash lists what is in the trash, the last removal first; only what the names are of, if there are any. Slow where
// nobody knows the sizes yet.
func (e *Engine) Trash(ctx context.Context, names ...string) ([]Trashed, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	_ = e.tidyTrash(ctx, e.measure(ctx)) // what could not go is listed
	list, err := e.trash().List()
	if err != nil {
		return nil, e.storeError(err)
	}
	l, _ := e.trashLimits()
	out := make([]Trashed, 0, len(list))
	for _, i := range slices.Backward(list) {
		out = append(out, e.trashed(ctx, i, l.Keep))
	}
	if len(names) == 0 {
		return out, nil
	}
	var some []Trashed
	for _, name := range names {
		t, err := findTrashed(out, name)
		if err != nil {
			return nil, err
		}
		some = append(some, *t)
	}
	return some, nil
}

func (e *Engine) trashed(ctx context.Context, i *trash.Item, keep time.Duration) Trashed {
	if e.mend(i); i.Size < 0 {
		i.Size = e.measure(ctx)(i)
	}
	return Trashed{
		Number: i.Number, Kind: i.Kind, ID: i.ID, Name: i.Name, Size: i.Size, Removed: i.Removed,
		Expires: i.Removed.Add(keep), By: i.By, Damaged: i.Damaged,
	}
}

// measure returns what finds out how much an item takes up.
func (e *Engine) measure(ctx context.Context) func(*trash.Item) int64 {
	return func(i *trash.Item) int64 {
		if i.Kind == trash.Image {
			return 0 // its layers could not be told from those of others when it went
		}
		size, err := treeSize(ctx, i.Path(""))
		if err != nil {
			return -1
		}
		return size
	}
}

// TrashUsage is how many things are in the trash, and the bytes that are free without them.
func (e *Engine) TrashUsage(ctx context.Context) (count int, bytes int64, err error) {
	list, err := e.Trash(ctx)
	for _, t := range list {
		bytes += max(t.Size, 0)
	}
	return len(list), bytes, err
}

// EmptyTrash removes what is in the trash for good: the things that are named as for Restore, or everything. It returns
// what is gone.
func (e *Engine) EmptyTrash(ctx context.Context, names ...string) ([]Trashed, error) {
	return e.emptyTrash(ctx, func(t *Trashed) bool { return true }, names...)
}

// emptyTrash removes what is wanted of what is named, or of everything.
func (e *Engine) emptyTrash(ctx context.Context, wanted func(*Trashed) bool, names ...string) ([]Trashed, error) {
	chosen, err := e.Trash(ctx, names...)
	if err != nil {
		return nil, err
	}
	chosen = slices.DeleteFunc(chosen, func(t Trashed) bool { return !wanted(&t) })
	var gone []Trashed
	for _, t := range slices.Backward(chosen) { // the oldest first
		err := e.trash().Remove(ctx, t.Number)
		if errors.Is(err, errdef.ErrNotFound) {
			continue // restored, or removed by somebody else
		}
		if err != nil {
			return gone, e.storeError(err)
		}
		gone = append(gone, t)
	}
	return gone, e.storeError(e.images().Collect(ctx))
}

// findTrashed finds what a person means by s: a number, a name, or an id or the beginning of one. Of several that were
// called the same it is the last.
func findTrashed(list []Trashed, s string) (*Trashed, error) {
	if n, err := strconv.Atoi(s); err == nil {
		for i := range list {
			if list[i].Number == n {
				return &list[i], nil
			}
		}
	}
	tagged := s
	if r, err := ref.Parse(s); err == nil {
		tagged = r.Tagged().Familiar()
	}
	for i := range list {
		t := &list[i]
		names := strings.Split(t.Name, ", ")
		if slices.Contains(names, strings.TrimPrefix(s, "/")) || t.Kind == trash.Image && slices.Contains(names, tagged) {
			return t, nil
		}
	}
	for i := range list {
		if id := strings.TrimPrefix(list[i].ID, "sha256:"); len(s) >= 4 && strings.HasPrefix(id, strings.TrimPrefix(s, "sha256:")) {
			return &list[i], nil
		}
	}
	return nil, errdef.NotFound("nothing in the trash is called %s: hull trash ls shows what there is", clip(s))
}
