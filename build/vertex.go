package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// inVertex shows f as a step that is in no graph.
func inVertex(ctx context.Context, name string, f func(context.Context) error) error {
	v := client.Vertex{Digest: digest.FromString(newID()), Name: name}
	w, ok, ctx := progress.NewFromContext(ctx, progress.WithMetadata("vertex", v.Digest))
	if !ok {
		return f(ctx)
	}
	now := time.Now()
	v.Started = &now
	err := w.Write(v.Digest.String(), v)
	if e := f(ctx); e != nil {
		v.Error = e.Error()
		err = e
	}
	end := time.Now()
	v.Completed = &end
	return errors.Join(err, w.Write(v.Digest.String(), v), w.Close())
}

func newOSFile(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }

// fileMode translates a mode of stat(2).
func fileMode(m uint32) fs.FileMode {
	out := fs.FileMode(m & 0o777)
	for _, b := range []struct {
		kernel uint32
		mode   fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if m&b.kernel != 0 {
			out |= b.mode
		}
	}
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		out |= fs.ModeDir
	case unix.S_IFLNK:
		out |= fs.ModeSymlink
	case unix.S_IFIFO:
		out |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		out |= fs.ModeSocket
	case unix.S_IFCHR:
		out |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		out |= fs.ModeDevice
	}
	return out
}
