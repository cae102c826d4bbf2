package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	contfs "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"hull/archive"
	"hull/builds"
	"hull/errdef"
	"hull/image/layer"
	"hull/kernel"
)

// fileOp changes files without a process: COPY, ADD, WORKDIR.
type fileOp struct {
	operation
	op *pb.FileOp
}

func newFile(base operation, op *pb.FileOp) (solver.Op, error) {
	f := &fileOp{base, op}
	n := int64(len(base.v.Inputs()))
	for i, a := range op.Actions {
		for _, in := range []int64{a.Input, a.SecondaryInput} {
			if in < -1 || in >= n+int64(i) {
				return nil, errdef.Invalid("%s: action %d has the input %d", base.v.Name(), i, in)
			}
		}
	}
	return f, nil
}

// CacheMap: what the actions say, and of the trees that files are copied from only those files.
func (f *fileOp) CacheMap(context.Context, solver.JobContext, int) (*solver.CacheMap, bool, error) {
	chosen := map[int][]selector{}
	whole := map[int]bool{} // inputs that count with all they have, for something is put on top of them
	var key struct {
		Type    string
		Actions []any
		Indexes [][3]int64
	}
	key.Type = "hull.file.v1"
	for _, a := range f.op.Actions {
		key.Indexes = append(key.Indexes, [3]int64{a.Input, a.SecondaryInput, a.Output})
		if a.Input >= 0 {
			whole[int(a.Input)] = true
		}
		switch x := a.Action.(type) {
		case *pb.FileAction_Copy:
			c := x.Copy.CloneVT()
			if in := int(a.SecondaryInput); in >= 0 && in < len(f.v.Inputs()) {
				chosen[in] = append(chosen[in], selector{
					path: c.Src, wildcard: c.AllowWildcard, follow: c.FollowSymlink, include: c.IncludePatterns, exclude: c.ExcludePatterns,
				})
				c.Src = path.Base(c.Src)
			}
			if err := f.owner(c.Owner, chosen); err != nil {
				return nil, false, err
			}
			key.Actions = append(key.Actions, c)
		case *pb.FileAction_Mkfile:
			if err := f.owner(x.Mkfile.Owner, chosen); err != nil {
				return nil, false, err
			}
			key.Actions = append(key.Actions, x.Mkfile)
		case *pb.FileAction_Mkdir:
			if err := f.owner(x.Mkdir.Owner, chosen); err != nil {
				return nil, false, err
			}
			key.Actions = append(key.Actions, x.Mkdir)
		case *pb.FileAction_Symlink:
			if err := f.owner(x.Symlink.Owner, chosen); err != nil {
				return nil, false, err
			}
			key.Actions = append(key.Actions, x.Symlink)
		case *pb.FileAction_Rm:
			key.Actions = append(key.Actions, x.Rm)
		default:
			return nil, false, errdef.NotImplemented("file action %T", a.Action)
		}
	}
	data, err := json.Marshal(key)
	if err != nil {
		return nil, false, err
	}
	m := newCacheMap(digest.FromBytes(data), len(f.v.Inputs()))
	for in, list := range chosen {
		if whole[in] {
			continue
		}
		text, err := json.Marshal(selectorNames(list))
		if err != nil {
			return nil, false, err
		}
		m.Deps[in].Selector = digest.FromBytes(text)
		m.Deps[in].ComputeDigestFunc = f.content(list)
	}
	return m, true, nil
}

func selectorNames(list []selector) []string {
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%q %t %t %q %q", s.path, s.wildcard, s.follow, s.include, s.exclude))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// owner chooses the files that names of owners are looked up in.
func (f *fileOp) owner(o *pb.ChownOpt, chosen map[int][]selector) error {
	if o == nil {
		return nil
	}
	for _, u := range []struct {
		opt  *pb.UserOpt
		file string
	}{{o.User, passwdFile}, {o.Group, groupFile}} {
		name, ok := u.opt.GetUser().(*pb.UserOpt_ByName)
		if !ok || name.ByName.Input < 0 {
			continue
		}
		in := int(name.ByName.Input)
		if in >= len(f.v.Inputs()) {
			return errdef.Invalid("%s: the owner is looked up in input %d", f.v.Name(), in)
		}
		chosen[in] = append(chosen[in], selector{path: u.file, follow: true})
	}
	return nil
}

const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
)

// newCacheMap is one without conditions on the n inputs.
func newCacheMap(d digest.Digest, n int) *solver.CacheMap {
	m := &solver.CacheMap{Digest: d}
	m.Deps = make([]struct {
		Selector          digest.Digest
		ComputeDigestFunc solver.ResultBasedCacheFunc
		PreprocessFunc    solver.PreprocessFunc
	}, n)
	return m
}

// content is the digest of an input by what is selected of it.
func (o *operation) content(list []selector) solver.ResultBasedCacheFunc {
	return func(ctx context.Context, r solver.Result, g session.Group) (d digest.Digest, err error) {
		t, err := treeOf(r)
		if err != nil {
			return "", err
		}
		j, err := o.jobOf(g)
		if err != nil {
			return "", err
		}
		err = j.with(t, func(v *view) (err error) {
			d, err = v.digestOf(ctx, list)
			return err
		})
		return d, err
	}
}

func (f *fileOp) Acquire(ctx context.Context) (solver.ReleaseFunc, error) { return f.b.acquire(ctx) }

// Exec carries the actions out, one on top of the other as they say.
func (f *fileOp) Exec(ctx context.Context, jc solver.JobContext, inputs []solver.Result) (out []solver.Result, err error) {
	j, err := f.job(jc)
	if err != nil {
		return nil, err
	}
	err = j.enclose(func(r *room) error {
		out, err = f.exec(ctx, r, inputs)
		return err
	})
	return out, err
}

func (f *fileOp) exec(ctx context.Context, room *room, inputs []solver.Result) (_ []solver.Result, err error) {
	r := &fileRun{op: f, room: room, uses: map[int64]int{}, states: make([]fileState, len(inputs)+len(f.op.Actions))}
	defer func() { err = errors.Join(err, r.close()) }()
	for i, in := range inputs {
		if r.states[i].t, err = treeOf(in); err != nil {
			return nil, err
		}
	}
	outputs := 0
	for _, a := range f.op.Actions {
		r.uses[a.Input]++
		if a.Output >= 0 {
			outputs = max(outputs, int(a.Output)+1)
		}
	}
	if outputs > len(f.op.Actions) {
		return nil, errdef.Invalid("%s: has an output %d", f.v.Name(), outputs-1)
	}
	out := make([]solver.Result, outputs)
	for i, a := range f.op.Actions {
		at := len(inputs) + i
		if err := r.action(ctx, at, a); err != nil {
			return nil, err
		}
		if a.Output < 0 {
			continue
		}
		if err := r.settle(at); err != nil {
			return nil, err
		}
		out[a.Output] = newResult(r.states[at].t)
	}
	for i := range out {
		if out[i] == nil {
			return nil, errdef.Invalid("%s: no action makes output %d", f.v.Name(), i)
		}
	}
	return out, nil
}

// fileRun is the actions of one operation under way. Its states are the inputs and what each action made.
type fileRun struct {
	op     *fileOp
	room   *room
	uses   map[int64]int // how often a state is built on
	states []fileState
}

// fileState is a tree: settled, or still being changed.
type fileState struct {
	t *tree
	d *draft
}

func (r *fileRun) close() error {
	var errs []error
	for _, s := range r.states {
		if s.d != nil {
			errs = append(errs, s.d.discard())
		}
	}
	return errors.Join(errs...)
}

// settle makes the state one that does not change any more.
func (r *fileRun) settle(at int) error {
	s := &r.states[at]
	if s.d == nil {
		return nil
	}
	fs, err := s.d.commit(r.op.v.Name())
	s.d = nil
	if err != nil {
		return err
	}
	s.t = &tree{fs: fs, what: r.op.v.Name()}
	return nil
}

// begin is the state that an action changes: that of the action before it if nobody else needs that, or a new one on top.
func (r *fileRun) begin(ctx context.Context, input int64) (*draft, error) {
	if input < 0 {
		return r.room.change(&builds.FS{})
	}
	s := &r.states[input]
	if s.d != nil && r.uses[input] == 1 {
		d := s.d
		s.d = nil
		return d, nil
	}
	if err := r.settle(int(input)); err != nil {
		return nil, err
	}
	if s.t.fs == nil {
		fs, err := r.room.j.copied(ctx, s.t)
		if err != nil {
			return nil, err
		}
		s.t = &tree{fs: fs, what: s.t.what}
	}
	return r.room.change(s.t.fs)
}

// source is a state for reading.
func (r *fileRun) source(input int64) (*view, error) {
	if input < 0 {
		return r.room.view(&tree{fs: &builds.FS{}})
	}
	if err := r.settle(int(input)); err != nil {
		return nil, err
	}
	return r.room.view(r.states[input].t)
}

func (r *fileRun) action(ctx context.Context, at int, a *pb.FileAction) (err error) {
	var src *view
	if c, ok := a.Action.(*pb.FileAction_Copy); ok {
		if c.Copy == nil {
			return errdef.Invalid("%s: copies nothing", r.op.v.Name())
		}
		if src, err = r.source(a.SecondaryInput); err != nil {
			return err
		}
		defer src.close()
	}
	owner := func(o *pb.ChownOpt) (*fscopy.User, error) { return r.owner(o) }
	var u *fscopy.User
	switch x := a.Action.(type) {
	case *pb.FileAction_Copy:
		u, err = owner(x.Copy.Owner)
	case *pb.FileAction_Mkfile:
		u, err = owner(x.Mkfile.Owner)
	case *pb.FileAction_Mkdir:
		u, err = owner(x.Mkdir.Owner)
	case *pb.FileAction_Symlink:
		u, err = owner(x.Symlink.Owner)
	}
	if err != nil {
		return err
	}
	d, err := r.begin(ctx, a.Input)
	if err != nil {
		return err
	}
	r.states[at].d = d
	switch x := a.Action.(type) {
	case *pb.FileAction_Copy:
		err = d.copy(ctx, src, x.Copy, u)
	case *pb.FileAction_Mkfile:
		err = d.mkfile(x.Mkfile, u)
	case *pb.FileAction_Mkdir:
		err = d.mkdir(x.Mkdir, u)
	case *pb.FileAction_Symlink:
		err = d.symlink(x.Symlink, u)
	case *pb.FileAction_Rm:
		err = d.remove(x.Rm)
	}
	err = trimPath(err, d.path())
	if src != nil {
		err = src.trim(err)
	}
	return err
}

// owner looks up whom files are given to; nil: nobody in particular.
func (r *fileRun) owner(o *pb.ChownOpt) (*fscopy.User, error) {
	if o == nil {
		return nil, nil
	}
	u := new(fscopy.User)
	for _, part := range []struct {
		opt  *pb.UserOpt
		file string
		id   *int
	}{{o.User, passwdFile, &u.UID}, {o.Group, groupFile, &u.GID}} {
		switch x := part.opt.GetUser().(type) {
		case *pb.UserOpt_ByID:
			*part.id = int(x.ByID)
			if part.file == passwdFile && o.Group == nil {
				u.GID = int(x.ByID)
			}
		case *pb.UserOpt_ByName:
			v, err := r.source(x.ByName.Input)
			if err != nil {
				return nil, err
			}
			id, gid, err := v.lookUp(part.file, x.ByName.Name)
			v.close()
			if err != nil {
				return nil, err
			}
			*part.id = id
			if part.file == passwdFile && o.Group == nil {
				u.GID = gid
			}
		}
	}
	return u, nil
}

// lookUp finds a name in /etc/passwd or /etc/group.
func (v *view) lookUp(file, name string) (id, gid int, err error) {
	kind := "user"
	if file == groupFile {
		kind = "group"
	}
	data, err := v.readFile(file, 8<<20)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 4 || f[0] != name {
			continue
		}
		id, err1 := strconv.ParseUint(f[2], 10, 31)
		gid, err2 := strconv.ParseUint(f[3], 10, 31)
		if err1 == nil && (err2 == nil || file == groupFile) {
			return int(id), int(gid), nil
		}
	}
	return 0, 0, errdef.NotFound("unable to find %s %s: no matching entries in %s of the image", kind, name, file)
}

func stampTime(n int64) *time.Time {
	if n == -1 {
		return nil
	}
	t := time.Unix(n/1e9, n%1e9)
	return &t
}

func chowner(u *fscopy.User) fscopy.Chowner {
	return func(old *fscopy.User) (*fscopy.User, error) {
		switch {
		case u != nil:
			return u, nil
		case old != nil:
			return old, nil
		}
		return &fscopy.User{}, nil // what is new belongs to root
	}
}

// cleaned is an absolute path that still ends in a slash if it did: that says "a directory".
func cleaned(p string) string {
	out := path.Join("/", p)
	if (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")) && out != "/" {
		out += "/"
	}
	return out
}

func (d *draft) copy(ctx context.Context, src *view, c *pb.FileActionCopy, u *fscopy.User) error {
	from, to := cleaned(c.Src), cleaned(c.Dest)
	if src.local != nil && u == nil {
		u = &fscopy.User{} // what comes from a client belongs to root
	}
	if !c.CreateDestPath {
		p, err := contfs.RootPath(d.path(), path.Join("/", c.Dest))
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Dir(p)); err != nil {
			return err
		}
	}
	info := fscopy.CopyInfo{
		IncludePatterns: c.IncludePatterns, ExcludePatterns: c.ExcludePatterns,
		Chown: chowner(u), Utime: stampTime(c.Timestamp), ModeStr: c.ModeStr,
		CopyDirContents: c.DirCopyContents, FollowLinks: c.FollowSymlink, AlwaysReplaceExistingDestPaths: c.AlwaysReplaceExistingDestPaths,
		XAttrErrorHandler: func(string, string, string, error) error { return nil }, // those that a file system does not have
	}
	if c.ModeStr == "" && c.Mode != -1 {
		info.Mode = new(int(c.Mode))
	}
	list := []string{from}
	if c.AllowWildcard {
		var err error
		if list, err = fscopy.ResolveWildcards(src.path(), from, c.FollowSymlink); err != nil {
			return err
		}
		if len(list) == 0 && !c.AllowEmptyWildcard {
			return errdef.NotFound("%q: not found", from)
		}
	}
	before, err := src.stamps(list)
	if err != nil {
		return err
	}
	for _, p := range list {
		if c.AttemptUnpackDockerCompatibility {
			done, err := d.unpack(ctx, src, p, to, u)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		if err := fscopy.Copy(ctx, src.path(), p, d.path(), to, fscopy.WithCopyInfo(info)); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return errdef.NotFound("%q: not found", p)
			}
			return err
		}
	}
	after, err := src.stamps(list)
	if err == nil && after != before {
		err = errChanged()
	}
	return err
}

// stamps says in one word how the files below the paths are; "" for what never changes.
func (v *view) stamps(list []string) (string, error) {
	if v.local == nil {
		return "", nil
	}
	h := digest.SHA256.Hash()
	for _, p := range list {
		rel, err := v.resolve(p, true)
		if err != nil {
			return "", err
		}
		err = filepath.WalkDir(filepath.Join(v.path(), rel), func(p string, _ os.DirEntry, err error) error {
			if err != nil {
				return nil // the copy says so
			}
			var st unix.Stat_t
			if unix.Lstat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				fmt.Fprintf(h, "%s %v\n", p, stampOf(&st, true))
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return string(h.Sum(nil)), nil
}

// unpack extracts the archive p into the directory to; done says that it is one.
func (d *draft) unpack(ctx context.Context, src *view, p, to string, u *fscopy.User) (done bool, err error) {
	rel, err := src.resolve(p, true)
	if err != nil {
		return false, err
	}
	fd, err := src.open(rel, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return false, nil // no file, or none of that name: the copy says so
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return false, err
	}
	if !isArchive(f) {
		return false, nil
	}
	if _, err := f.Seek(0, 0); err != nil {
		return false, err
	}
	plain, _, err := layer.Decompress(f)
	if err != nil {
		return false, err
	}
	defer plain.Close()
	dest, err := contfs.RootPath(d.path(), to)
	if err != nil {
		return false, err
	}
	if _, err := fscopy.MkdirAll(dest, 0o755, chowner(u), nil); err != nil {
		return false, err
	}
	// Links that the tar goes through may lead anywhere in the directory: the kernel follows them, as if it were the root.
	mount, err := kernel.Clone(unix.AT_FDCWD, dest, false)
	if err != nil {
		return false, err
	}
	defer unix.Close(mount)
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOSYMFOLLOW}
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return false, err
	}
	dir, err := archive.Open(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(dir)
	x := archive.Extraction{AsRoot: true, KeepOwner: true}
	if u != nil {
		x.Owner = &archive.Owner{UID: u.UID, GID: u.GID}
	}
	return true, archive.Extract(ctx, dir, plain, x)
}

func (d *draft) mkfile(a *pb.FileActionMkFile, u *fscopy.User) (err error) {
	p, err := contfs.RootPath(d.path(), path.Join("/", a.Path))
	if err != nil {
		return err
	}
	if p == d.path() {
		return &os.PathError{Op: "make file", Path: a.Path, Err: unix.EISDIR}
	}
	// Beside it and renamed: what is there may be a device, and is never opened.
	f, err := os.CreateTemp(filepath.Dir(p), ".hull-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(a.Data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fscopy.Chown(f.Name(), nil, chowner(u)); err != nil {
		return err
	}
	if err := os.Chmod(f.Name(), os.FileMode(a.Mode)&0o777); err != nil {
		return err
	}
	if err := fscopy.Utimes(f.Name(), stampTime(a.Timestamp)); err != nil {
		return err
	}
	return os.Rename(f.Name(), p)
}

func (d *draft) mkdir(a *pb.FileActionMkDir, u *fscopy.User) error {
	p, err := contfs.RootPath(d.path(), path.Join("/", a.Path))
	if err != nil {
		return err
	}
	if a.MakeParents {
		_, err := fscopy.MkdirAll(p, os.FileMode(a.Mode)&0o777, chowner(u), stampTime(a.Timestamp))
		return err
	}
	if err := os.Mkdir(p, os.FileMode(a.Mode)&0o777); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	if err := os.Chmod(p, os.FileMode(a.Mode)&0o777); err != nil { // whatever the umask
		return err
	}
	if err := fscopy.Chown(p, nil, chowner(u)); err != nil {
		return err
	}
	return fscopy.Utimes(p, stampTime(a.Timestamp))
}

func (d *draft) symlink(a *pb.FileActionSymlink, u *fscopy.User) error {
	p, err := contfs.RootPath(d.path(), path.Join("/", a.Newpath))
	if err != nil {
		return err
	}
	if err := os.Symlink(a.Oldpath, p); err != nil {
		return err
	}
	if err := fscopy.Chown(p, nil, chowner(u)); err != nil {
		return err
	}
	return fscopy.Utimes(p, stampTime(a.Timestamp))
}

func (d *draft) remove(a *pb.FileActionRm) error {
	list := []string{a.Path}
	if a.AllowWildcard {
		var err error
		if list, err = fscopy.ResolveWildcards(d.path(), cleaned(a.Path), false); err != nil {
			return err
		}
	}
	for _, p := range list {
		dir, base := path.Split(path.Join("/", p))
		if base == "" {
			return errdef.Invalid("the root directory cannot be removed")
		}
		parent, err := contfs.RootPath(d.path(), dir)
		if err != nil {
			return err
		}
		p = filepath.Join(parent, base)
		if !a.AllowNotFound {
			if _, err := os.Lstat(p); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

// copied is a directory of the client as a file system of the store.
func (j *job) copied(ctx context.Context, t *tree) (fs *builds.FS, err error) {
	err = j.enclose(func(r *room) error {
		fs, err = r.copyOver(ctx, &builds.FS{}, t, t.what)
		return err
	})
	return fs, err
}

// copyOver puts all files of t on top of base.
func (r *room) copyOver(ctx context.Context, base *builds.FS, t *tree, what string) (*builds.FS, error) {
	src, err := r.view(t)
	if err != nil {
		return nil, err
	}
	defer src.close()
	d, err := r.change(base)
	if err != nil {
		return nil, err
	}
	all := &pb.FileActionCopy{Src: "/", Dest: "/", Mode: -1, DirCopyContents: true, Timestamp: -1, AlwaysReplaceExistingDestPaths: true}
	if err := d.copy(ctx, src, all, nil); err != nil {
		return nil, errors.Join(err, d.discard())
	}
	return d.commit(what)
}

// isArchive says whether f begins with a tar, compressed or not, of which there is something to extract.
func isArchive(f *os.File) bool {
	plain, _, err := layer.Decompress(f)
	if err != nil {
		return false
	}
	defer plain.Close()
	return archive.Is(plain)
}
