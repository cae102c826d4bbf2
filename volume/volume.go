// Package volume keeps volumes: directories of data that outlive the containers that use them.
//
//	s := volume.Open(root)
//	h, err := s.Hold(ctx, volume.Spec{Name: "data"})   // made if absent; nobody removes it until
//	defer h.Release()
//	err = h.Fill(ctx, dir)                              // only an empty one, and whole or not at all
//	err = s.Remove(ctx, "data", func(*volume.Volume) error { return nil })
//
// A volume is a directory that appears and disappears by one rename each:
//
//	<root>/volumes/<name>/
//	    volume.json     its definition, written once
//	    shared          there when others than its maker have used it, see Volume.Private
//	    copy/           a copy of an image's content, whole, of which parts are in _data already
//	    _data/          what containers see
//	<root>/volumes/.tmp-*   not yet, or no longer, a volume; removed by the next command when nobody holds its lock
//
// Whoever changes a volume holds the lock of its directory, which containers do not see. Who uses volumes is not known
// here: the callers say it, while the lock is held.
//
// Beware: the content is a container's. Nothing here follows a name in it.
package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/state"
	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

const (
	configFile = "volume.json"
	dataDir    = "_data"
	copyDir    = "copy"
	sharedFile = "shared"
	maxConfig  = 4 << 20
	// lockWait bounds how long one command waits for another that fills the same volume.
	lockWait = 5 * time.Minute
)

// Store is all volumes of one engine. It opens nothing until used.
type Store struct {
	dir string

	// Content belongs to ids that an ordinary user is not. Discard and Move, when set, do the work of state.Remove and
	// state.MoveInto with more rights.
	Discard func(dir string) error
	Move    func(from, to string) error
	// Told, when set, is called when a volume has come ("create") or gone ("destroy").
	Told func(action, name string)
}

func (s *Store) tell(action, name string) {
	if s.Told != nil {
		s.Told(action, name)
	}
}

// Open returns the volumes of the store root. It touches nothing.
func Open(root string) *Store { return &Store{dir: filepath.Join(root, "volumes")} }

func (s *Store) remove(dir string) error {
	if s.Discard != nil {
		return s.Discard(dir)
	}
	return state.Remove(dir)
}

func (s *Store) move(from, to string) error {
	if s.Move != nil {
		return s.Move(from, to)
	}
	return state.MoveInto(from, to)
}

// Spec says which volume is wanted. All but the name counts only when it is made.
type Spec struct {
	Name    string
	Driver  string // "" or "local"
	Labels  map[string]string
	Options map[string]string // of the driver: type, device, o
	// Owner is the id of the container an anonymous volume is made for.
	Owner string
	// Volatile says that the volume goes with its container: it need not survive a power cut.
	Volatile bool
}

// Volume is one volume.
type Volume struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	Owner   string            `json:"owner,omitempty"`
	// Damaged says why the definition cannot be read: such a volume is listed and can be removed, no more.
	Damaged string `json:"-"`
	// Unread is why List could not read the definition, where that proves nothing about it.
	Unread error `json:"-"`

	dir string
}

// Driver is the only one there is.
const Driver = "local"

// Path is the directory of the data on the host.
func (v *Volume) Path() string { return filepath.Join(v.dir, dataDir) }

// Anonymous reports whether the volume was made for a container and has a name nobody chose.
func (v *Volume) Anonymous() bool { return v.Owner != "" }

// Private reports whether no container but the owner can have used the volume: then nobody else has to be asked.
func (v *Volume) Private() bool {
	if v.Owner == "" {
		return false
	}
	_, err := os.Lstat(filepath.Join(v.dir, sharedFile))
	return isMissing(err)
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// Path is where the data of the volume name lie, whether it exists or not.
func (s *Store) Path(name string) string { return filepath.Join(s.dir, name, dataDir) }

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func notFound(name string) error { return errdef.NotFound("get %s: no such volume", clip(name)) }

// Get returns the volume called name.
func (s *Store) Get(name string) (*Volume, error) {
	if CheckName(name) != nil {
		return nil, notFound(name)
	}
	v, err := s.read(name)
	for try := 0; isMissing(err) && try < 3; try++ { // it may come, or go, between two looks
		if _, statErr := os.Lstat(s.path(name)); isMissing(statErr) {
			return nil, notFound(name)
		}
		v, err = s.read(name)
	}
	if err != nil && !isMissing(err) && !errors.Is(err, errdef.ErrCorrupt) {
		return nil, fmt.Errorf("volume %s cannot be read, which is no proof that it is damaged: %w", name, err)
	}
	if err != nil {
		return &Volume{Name: name, Damaged: err.Error(), dir: s.path(name)}, nil
	}
	return v, nil
}

func (s *Store) read(name string) (*Volume, error) {
	v, err := s.Look(s.path(name))
	if err == nil && v.Name != name {
		return nil, errdef.As(errdef.ErrCorrupt, errors.New("it is the definition of another volume"))
	}
	return v, err
}

// List returns all volumes by name, damaged ones too.
func (s *Store) List() ([]*Volume, error) {
	s.Sweep()
	names, err := readNames(s.dir)
	if err != nil {
		return nil, err
	}
	var out []*Volume
	for _, n := range names {
		v, err := s.Get(n)
		switch {
		case err == nil:
			out = append(out, v)
		case !errors.Is(err, errdef.ErrNotFound):
			out = append(out, &Volume{Name: n, Unread: err, dir: s.path(n)})
		}
	}
	slices.SortFunc(out, func(a, b *Volume) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// Create makes the volume, unless there is one of that name: then that is what it returns. Of any number of creators
// at once all get the same one. The volume survives a power cut.
func (s *Store) Create(ctx context.Context, o Spec) (*Volume, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if v, err := s.Get(o.Name); err == nil {
		return v, nil
	}
	h, err := s.Hold(ctx, o)
	if err != nil {
		return nil, err
	}
	h.Release()
	return h.Volume, nil
}

// Held is a volume that nobody removes or fills until Release.
type Held struct {
	*Volume
	store    *Store
	lock     *state.Locked
	volatile bool
}

// Release gives the volume back.
func (h *Held) Release() { h.lock.Unlock() }

// Hold returns the volume and keeps it in place. It is made if absent. Several are held in the order of their names.
func (s *Store) Hold(ctx context.Context, o Spec) (*Held, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	for {
		h, err := s.HoldExisting(ctx, o.Name)
		if !errors.Is(err, errdef.ErrNotFound) {
			return h, err
		}
		if h, err = s.make(ctx, &o); h != nil || err != nil {
			return h, err
		}
	}
}

// HoldExisting is Hold of a volume that must exist.
func (s *Store) HoldExisting(ctx context.Context, name string) (*Held, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errors.New("waited "+lockWait.String()))
	defer cancel()
	l, err := state.Lock(ctx, s.path(name))
	if isMissing(err) {
		return nil, notFound(name)
	}
	if err != nil {
		return nil, err
	}
	v, err := s.Get(name)
	if err == nil && v.Damaged != "" {
		err = errdef.As(errdef.ErrCorrupt, errors.New("the definition of volume "+name+" is damaged and it can only be removed: "+v.Damaged))
	}
	h := &Held{Volume: v, store: s, lock: l}
	if err == nil {
		err = h.settle()
	}
	if err != nil {
		l.Unlock()
		return nil, err
	}
	return h, nil
}

// make makes a volume; nil without an error when somebody else was quicker.
func (s *Store) make(ctx context.Context, o *Spec) (_ *Held, err error) {
	s.Sweep()
	tmp, l, err := s.scratch(ctx)
	if err != nil {
		return nil, err
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, state.Remove(tmp))
			l.Unlock()
		}
	}()
	v := &Volume{Name: o.Name, Created: time.Now().UTC(), Labels: o.Labels, Options: o.Options, Owner: o.Owner, dir: s.path(o.Name)}
	b, err := plainjson.Marshal(v)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(tmp, dataDir)
	if err := errors.Join(os.Mkdir(data, 0o755), os.Chmod(data, 0o755)); err != nil { // whatever the umask
		return nil, err
	}
	write := state.WriteDurable
	if o.Volatile {
		write = state.Write
	}
	if err := write(filepath.Join(tmp, configFile), b); err != nil {
		return nil, err
	}
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, v.dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "create volume", Path: v.dir, Err: err}
	}
	kept = true
	s.tell("create", o.Name)
	if !o.Volatile {
		if err := state.SyncDir(s.dir); err != nil {
			l.Unlock()
			return nil, err
		}
	}
	return &Held{Volume: v, store: s, lock: l, volatile: o.Volatile}, nil
}

// scratch makes and locks a directory that is no volume yet.
func (s *Store) scratch(ctx context.Context) (string, *state.Locked, error) {
	for {
		tmp := s.path(state.TempName())
		err := os.Mkdir(tmp, 0o700)
		if isMissing(err) {
			if err = os.MkdirAll(s.dir, 0o700); err == nil {
				continue
			}
		}
		if err != nil {
			return "", nil, err
		}
		l, err := state.Lock(ctx, tmp)
		if !isMissing(err) { // else a sweeper came between the two
			return tmp, l, err
		}
	}
}

// Sweep removes what killed processes left. It waits for nobody and has no error: what cannot be removed now is tried
// again next time.
func (s *Store) Sweep() {
	names, err := readNames(s.dir)
	if err != nil {
		return
	}
	for _, n := range names {
		if !strings.HasPrefix(n, state.TempPrefix) {
			continue
		}
		if l, ok, err := state.TryLock(s.path(n)); err == nil && ok {
			_ = s.remove(s.path(n))
			l.Unlock()
		}
	}
}

// Share records that another container than its owner is going to use the volume.
func (h *Held) Share() error {
	if h.Owner == "" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(h.dir, sharedFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), state.SyncDir(h.dir))
}

// Remove removes the volume called name, unless inUse has a reason against it. inUse is called while nobody else can
// begin to use the volume. Once it is gone it is gone for everybody, however long the rest takes.
func (s *Store) Remove(ctx context.Context, name string, inUse func(*Volume) error) error {
	if err := s.Drop(ctx, name, inUse); err != nil {
		return err
	}
	return state.SyncDir(s.dir)
}

// Drop is Remove of a volume that may come back after a power cut, to be removed again: with the container it was
// made for.
func (s *Store) Drop(ctx context.Context, name string, inUse func(*Volume) error) error {
	if CheckName(name) != nil {
		return notFound(name)
	}
	gone := s.path(state.TempName() + "-" + name[:min(len(name), 150)])
	l, err := s.detach(ctx, name, gone, inUse)
	if err != nil {
		return err
	}
	defer l.Unlock()
	return s.remove(gone)
}

// Take is Remove that leaves the volume whole, as the directory to, which is on the same file system: Put brings it back.
func (s *Store) Take(ctx context.Context, name, to string, inUse func(*Volume) error) error {
	if CheckName(name) != nil {
		return notFound(name)
	}
	l, err := s.detach(ctx, name, to, inUse)
	if err != nil {
		return err
	}
	l.Unlock()
	_ = state.SyncDir(s.dir) // it is gone, whatever this says: after a power cut it may be back
	return nil
}

// Put makes the directory from, which Take has left, the volume called name. The error of a name that is taken is of the
// kind ErrConflict.
func (s *Store) Put(from, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	v, err := s.Look(from)
	if err != nil {
		return err
	}
	if v.Name != name {
		v.Name = name
		b, err := plainjson.Marshal(v)
		if err == nil {
			err = state.WriteDurable(filepath.Join(from, configFile), b)
		}
		if err != nil {
			return err
		}
	}
	err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, s.path(name), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return errdef.Conflict("there is a volume called %s already", name)
	}
	if err != nil {
		return &fs.PathError{Op: "restore volume", Path: s.path(name), Err: err}
	}
	if err := state.SyncDir(s.dir); err != nil {
		// A power cut might take it away again: it is where it was, and can be restored once more.
		return errors.Join(err, unix.Renameat2(unix.AT_FDCWD, s.path(name), unix.AT_FDCWD, from, unix.RENAME_NOREPLACE))
	}
	s.tell("create", name)
	return nil
}

// Look reads the definition of the volume in the directory dir, which Take has left.
func (s *Store) Look(dir string) (*Volume, error) {
	b, err := state.Read(filepath.Join(dir, configFile), maxConfig)
	if err != nil {
		return nil, err
	}
	v := &Volume{dir: dir}
	if err := plainjson.Unmarshal(b, v); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, err)
	}
	return v, nil
}

// detach renames the volume called name to the path to, unless inUse has a reason against it, and returns its lock.
func (s *Store) detach(ctx context.Context, name, to string, inUse func(*Volume) error) (_ *state.Locked, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errors.New("waited "+lockWait.String()))
	defer cancel()
	l, err := state.Lock(ctx, s.path(name))
	if isMissing(err) {
		return nil, notFound(name)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Unlock()
		}
	}()
	v, err := s.Get(name)
	if err != nil {
		return nil, err
	}
	if err := inUse(v); err != nil {
		return nil, err
	}
	if at := mountedBelow(v.dir); at != "" {
		return nil, errdef.Conflict("remove %s: something is mounted at %s: unmount it first", name, at)
	}
	if err := os.Rename(v.dir, to); err != nil {
		return nil, err
	}
	s.tell("destroy", name)
	return l, nil
}

// mountedBelow returns a mount point of this namespace in the directory, or "". Its content is not ours to remove.
func mountedBelow(dir string) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			return f[4]
		}
	}
	return ""
}
