package build

import (
	"context"
	"errors"
	gofs "io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/kernel"
)

// local is a directory of the client, as far as the build may see it: without what .dockerignore leaves out. Nothing is copied
// for that. It is mounted as the lower layer of an overlay whose upper one hides the rest, and whoever copies from it looks
// afterwards whether the files are still those whose sums went into the cache key.
type local struct {
	name, dir string
	// hidden are the paths that do not belong to it: what is below a hidden directory is not named.
	hidden []string
	sums   *sums
}

// scan reads which files of dir there are, by the patterns that a frontend asks for.
func scan(ctx context.Context, name, dir string, include, exclude, follow []string) (*local, error) {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, gofs.ErrNotExist):
		return nil, errdef.NotFound("unable to prepare context: path %q not found", dir)
	case err != nil:
		return nil, errdef.Invalid("the directory %s of the build: %w", name, err)
	case !st.IsDir():
		return nil, errdef.Invalid("unable to prepare context: path %q is not a directory", dir)
	}
	l := &local{name: name, dir: dir}
	if len(include)+len(exclude)+len(follow) == 0 {
		return l, nil
	}
	all, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, err
	}
	some, err := fsutil.NewFilterFS(all, &fsutil.FilterOpt{IncludePatterns: include, ExcludePatterns: exclude, FollowPaths: follow})
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, err)
	}
	shown := map[string]bool{".": true}
	err = some.Walk(ctx, "", func(p string, _ gofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		shown[p] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(dir, func(p string, d gofs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		rel, relErr := filepath.Rel(dir, p)
		if relErr != nil {
			return relErr
		}
		if !shown[rel] { // what cannot be read but does not belong to it is in nobody's way
			l.hidden = append(l.hidden, rel)
			if d != nil && d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		return err
	})
	return l, err
}

// mount shows the directory.
func (l *local) mount(r *room) (*mounted, error) {
	if len(l.hidden) == 0 {
		fd, err := kernel.Clone(unix.AT_FDCWD, l.dir, false)
		if err != nil {
			return nil, noRoot(err)
		}
		return r.place(fd, true)
	}
	top, err := r.newDir()
	if err != nil {
		return nil, err
	}
	upper, scratch := filepath.Join(top, "hide"), filepath.Join(top, "mnt")
	for _, d := range []string{upper, scratch} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	for _, p := range l.hidden {
		if err := hide(upper, l.dir, p); err != nil {
			return nil, err
		}
	}
	fd, err := (&kernel.Overlay{Lower: []string{upper, l.dir}, Scratch: scratch}).Mount()
	if err != nil {
		return nil, noRoot(err)
	}
	return r.place(fd, true)
}

// hide makes a whiteout of the path p in the directory upper. The directories on the way to it are shown with owner, mode and
// time of ours, so those of lower are given to them.
func hide(upper, lower, p string) error {
	made := ""
	for part := range strings.SplitSeq(filepath.Dir(p), "/") {
		if part == "." {
			break
		}
		made = filepath.Join(made, part)
		if err := os.Mkdir(filepath.Join(upper, made), 0o755); errors.Is(err, gofs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
	}
	if err := unix.Mknod(filepath.Join(upper, p), unix.S_IFCHR, 0); err != nil {
		return &gofs.PathError{Op: "hide", Path: p, Err: err}
	}
	for made != "." && made != "" { // each whiteout in it changed its time
		if err := alike(filepath.Join(upper, made), filepath.Join(lower, made)); err != nil {
			return err
		}
		made = filepath.Dir(made)
	}
	return nil
}

// alike gives the directory dir the mode and time of another.
func alike(dir, other string) error {
	var st unix.Stat_t
	if err := unix.Lstat(other, &st); err != nil {
		return &gofs.PathError{Op: "stat", Path: other, Err: err}
	}
	if err := unix.Chmod(dir, st.Mode&0o7777); err != nil {
		return &gofs.PathError{Op: "chmod", Path: dir, Err: err}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// below says whether the path p, relative, is in the directory dir or is it.
func below(p, dir string) bool {
	return p == dir || dir == "." || strings.HasPrefix(p, dir+"/")
}
