// Package trash keeps what was removed until it is restored, or removed for good.
//
//	s := trash.Open(root)
//	e, err := s.Begin(&trash.Record{Kind: trash.Volume, Name: "data"})
//	err = os.Rename(dir, e.Path("volume"))   // or e.Drop() if that fails
//	err = e.Keep()                           // from now on it is listed
//
//	e, err := s.Take(ctx, 7)                 // nobody else has it from now on
//	err = os.Rename(e.Path("volume"), dir)   // or e.Back() if that fails
//	e.Done()
//
// What is in the trash is a directory with a record and whatever the caller has renamed into it:
//
//	<root>/undo/<number>/record.json     the highest number is the last removal, whatever the clock says
//	<root>/undo/<number>/...             the removed thing itself
//	<root>/undo/.limbo/in-<x>            on its way in
//	<root>/undo/.limbo/out-<number>      on its way back
//	<root>/undo/.limbo/gone-<x>          being removed for good
//
// Whoever works in limbo holds the lock of the directory, which moves with it. What a killed process left there has a
// free lock, and Sweep asks the caller whether the thing is in it: if so a removal is finished, and a restore taken back.
//
// Beware: the record of what is only renamed is not synced. After a power cut it may be empty; then Item.Damaged says
// so, and the caller has to make do with what it finds there.
package trash

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/state"

	"golang.org/x/sys/unix"
)

// The kinds of what is removed.
const (
	Container = "container"
	Image     = "image"
	Volume    = "volume"
)

const (
	recordFile = "record.json"
	maxRecord  = 16 << 20
	limboDir   = ".limbo"
	goneName   = "gone-"
	outName    = "out-"
	inName     = "in-"
)

// Record says what was removed.
type Record struct {
	Kind    string    `json:"kind"`
	ID      string    `json:"id,omitempty"` // of a container or an image
	Name    string    `json:"name"`
	Removed time.Time `json:"removed"`
	// Boot and Up are the boot of the machine in which that was, and how old it was then: see age.go.
	Boot  string        `json:"boot,omitempty"`
	Up    time.Duration `json:"up,omitempty"`
	By    string        `json:"by"`              // the command
	Batch string        `json:"batch,omitempty"` // the same for all that one command removed
	Size  int64         `json:"size"`            // bytes that are free without it; negative is not known yet
	// Layers are the chain ids of the layers that a container is made of.
	Layers []string `json:"layers,omitempty"`
	// Volumes says that the anonymous volumes of a container go with it.
	Volumes bool `json:"volumes,omitempty"`
	// Detail is what package image needs to put an image back.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Item is one thing in the trash.
type Item struct {
	Number int // 0 on its way in
	Record
	// Damaged says why the record cannot be read: such an item is listed and can be removed, no more.
	Damaged string

	dir string
}

// Path is where a part of the item is.
func (i *Item) Path(part string) string { return filepath.Join(i.dir, part) }

// Store is the trash of one engine. It opens nothing until used.
type Store struct {
	dir string
	// Discard, when set, does the work of state.Remove with more rights.
	Discard func(dir string) error

	now func() moment
}

// Open returns the trash of the store root. It touches nothing.
func Open(root string) *Store { return &Store{dir: filepath.Join(root, "undo"), now: present} }

func (s *Store) limbo(name string) string { return filepath.Join(s.dir, limboDir, name) }
func (s *Store) path(n int) string        { return filepath.Join(s.dir, strconv.Itoa(n)) }

func (s *Store) discard(dir string) error {
	if s.Discard != nil {
		return s.Discard(dir)
	}
	return state.Remove(dir)
}

// Entry is an item on its way in or out, which nobody else touches until one of Keep, Drop, Back and Done.
type Entry struct {
	Item
	store *Store
	lock  *state.Locked
}

// Begin makes a place for what is about to be removed.
func (s *Store) Begin(r *Record) (*Entry, error) { return s.begin(r, state.Write) }

// BeginDurable is Begin of a removal whose record is all there is: it survives a power cut.
func (s *Store) BeginDurable(r *Record) (*Entry, error) {
	e, err := s.begin(r, state.WriteDurable)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(state.SyncDir(s.limbo("")), state.SyncDir(s.dir)); err != nil {
		e.Drop()
		return nil, err
	}
	return e, nil
}

func (s *Store) begin(r *Record, write func(string, []byte) error) (*Entry, error) {
	r.stamp(s.now())
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	dir, l, err := s.scratch()
	if err != nil {
		return nil, err
	}
	e := &Entry{Item: Item{Record: *r, dir: dir}, store: s, lock: l}
	if err := write(e.Path(recordFile), data); err != nil {
		e.Drop()
		return nil, err
	}
	return e, nil
}

// scratch makes and locks an empty directory in limbo.
func (s *Store) scratch() (string, *state.Locked, error) {
	for {
		dir := s.limbo(inName + strings.TrimPrefix(state.TempName(), state.TempPrefix))
		err := os.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(s.limbo(""), 0o700); err == nil {
				continue
			}
		}
		if err != nil {
			return "", nil, err
		}
		l, ok, err := state.TryLock(dir)
		if ok {
			return dir, l, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // else a sweeper came between the two
			_ = os.Remove(dir)
			return "", nil, err
		}
	}
}

// Keep lists what came in, as the last removal of all. After an error the next Sweep does it.
func (e *Entry) Keep() error {
	defer e.lock.Unlock()
	for {
		n, err := e.store.next()
		if err != nil {
			return err
		}
		err = e.move(e.store.path(n))
		if !errors.Is(err, fs.ErrExist) { // else somebody was quicker
			e.Number = n
			return err
		}
	}
}

// next is the number after all others. What is on its way out keeps its own: it may come back.
func (s *Store) next() (int, error) {
	numbers, err := s.numbers()
	if err != nil {
		return 0, err
	}
	last := 0
	if len(numbers) > 0 {
		last = numbers[len(numbers)-1]
	}
	names, err := readNames(s.limbo("")) // after the list: what leaves it meanwhile is in one of the two
	for _, name := range names {
		if number, out := strings.CutPrefix(name, outName); out {
			if n, err := strconv.Atoi(number); err == nil {
				last = max(last, n)
			}
		}
	}
	return last + 1, err
}

// Drop gives up the place of something that did not come in. If it has come in all the same, the next Sweep finds it.
func (e *Entry) Drop() {
	defer e.lock.Unlock()
	names, err := readNames(e.dir)
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return n != recordFile && !strings.HasPrefix(n, state.TempPrefix) }) {
		return
	}
	_ = state.Remove(e.dir) // or the next Sweep does
}

// Back lists what was taken out again.
func (e *Entry) Back() error {
	err := e.move(e.store.path(e.Number))
	if errors.Is(err, fs.ErrExist) { // somebody has its number: better under another one than not at all
		return e.Keep()
	}
	e.lock.Unlock()
	return err
}

// Done removes what is left of an entry whose thing has been restored, or cannot be.
func (e *Entry) Done() {
	defer e.lock.Unlock()
	_ = e.store.discard(e.dir) // or the next Sweep does
}

func (e *Entry) move(to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, e.dir, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &fs.PathError{Op: "rename", Path: e.dir, Err: err}
	}
	e.dir = to
	return nil
}

// Take takes the item n out of the list. Of several at once one gets it; the others learn that there is none.
func (s *Store) Take(ctx context.Context, n int) (*Entry, error) {
	return s.take(ctx, n, outName+strconv.Itoa(n))
}

func (s *Store) take(ctx context.Context, n int, limbo string) (*Entry, error) {
	l, err := state.Lock(ctx, s.path(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdef.NotFound("there is no %d in the trash", n)
	}
	if err != nil {
		return nil, err
	}
	e := &Entry{Item: *s.read(n, s.path(n)), store: s, lock: l}
	err = e.move(s.limbo(limbo))
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(s.limbo(""), 0o700); err == nil {
			err = e.move(s.limbo(limbo))
		}
	}
	if err != nil {
		l.Unlock()
		return nil, err
	}
	return e, nil
}

// Remove removes the item n for good.
func (s *Store) Remove(ctx context.Context, n int) error {
	e, err := s.take(ctx, n, goneName+strings.TrimPrefix(state.TempName(), state.TempPrefix))
	if err != nil {
		return err
	}
	defer e.lock.Unlock()
	return s.discard(e.dir)
}

// Sweep sees to what killed processes left in limbo: whole says of an entry, which is locked, whether the thing is in
// it, and puts in order what else belongs to it. Sweep waits for nobody and has no error: what cannot be done now is tried
// again next time.
func (s *Store) Sweep(whole func(e *Entry, out bool) bool) {
	names, _ := readNames(s.limbo(""))
	for _, name := range names {
		l, ok, err := state.TryLock(s.limbo(name))
		if err != nil || !ok {
			continue
		}
		number, out := strings.CutPrefix(name, outName)
		n, _ := strconv.Atoi(number)
		e := &Entry{Item: *s.read(n, s.limbo(name)), store: s, lock: l}
		switch {
		case strings.HasPrefix(name, goneName) || !whole(e, out):
			e.Done()
		case out:
			_ = e.Back()
		default:
			e.Number = 0
			_ = e.Keep()
		}
	}
}

// List returns what is in the trash, in the order it was removed. Damaged items come too.
func (s *Store) List() ([]*Item, error) {
	numbers, err := s.numbers()
	if err != nil {
		return nil, err
	}
	var out []*Item
	for _, n := range numbers {
		if i := s.listed(n); i != nil {
			out = append(out, i)
		}
	}
	return out, nil
}

// All is List with what is on its way in or out: for those who must not overlook anything. An item that moves meanwhile
// may be in it twice.
func (s *Store) All() ([]*Item, error) {
	names, err := readNames(s.limbo(""))
	if err != nil {
		return nil, err
	}
	list, err := s.List()
	for _, name := range names {
		if !strings.HasPrefix(name, goneName) {
			list = append(list, s.read(0, s.limbo(name)))
		}
	}
	return list, err
}

// Last returns what the last command removed, the last of it first; nothing when the trash is empty.
func (s *Store) Last() ([]*Item, error) {
	numbers, err := s.numbers()
	if err != nil {
		return nil, err
	}
	var out []*Item
	for _, n := range slices.Backward(numbers) {
		i := s.listed(n)
		if i == nil {
			continue
		}
		if len(out) > 0 && (i.Batch == "" || i.Batch != out[0].Batch) {
			break
		}
		out = append(out, i)
	}
	return out, nil
}

// numbers are those of all items, ascending.
func (s *Store) numbers() ([]int, error) {
	names, err := readNames(s.dir)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n > 0 && strconv.Itoa(n) == name {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// listed reads the item n; nil when it has left the list meanwhile. It may come back, so that is no reason to remove it.
func (s *Store) listed(n int) *Item {
	i := s.read(n, s.path(n))
	if _, err := os.Lstat(i.dir); i.Damaged != "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return i
}

func (s *Store) read(n int, dir string) *Item {
	i := &Item{Number: n, dir: dir}
	data, err := state.Read(i.Path(recordFile), maxRecord)
	if err == nil {
		err = json.Unmarshal(data, &i.Record)
	}
	switch i.Kind {
	case Container, Image, Volume:
	default:
		if err == nil {
			err = errors.New("its record is of no kind that is known")
		}
	}
	if err != nil {
		i.Record = Record{Size: -1}
		i.Damaged = err.Error()
		if fi, err := os.Lstat(dir); err == nil {
			i.Removed = fi.ModTime()
		}
	}
	return i
}

// readNames lists a directory in no order; a missing one is empty.
func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
