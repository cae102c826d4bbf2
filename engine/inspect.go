package engine

import (
	"context"
	"io/fs"
	"path/filepath"

	"hull/monitor"

	"golang.org/x/sys/unix"
)

// Inspect returns one container.
func (e *Engine) Inspect(ctx context.Context, name string) (*Container, error) {
	return e.get(ctx, name)
}

// Files are the places of a container on the host.
type Files struct {
	Log, Hostname, Hosts, ResolvConf string
	Upper, Work                      string
	Lower                            []string // topmost first
}

// Files tells where things of a container are; some exist only once it was started.
func (e *Engine) Files(c *Container) Files {
	d := e.dir(c.ID)
	f := Files{
		Log:      filepath.Join(d, monitor.LogDir, monitor.LogFile),
		Hostname: filepath.Join(d, "hostname"), Hosts: filepath.Join(d, "hosts"), ResolvConf: filepath.Join(d, "resolv.conf"),
		Upper: filepath.Join(d, "rw", "upper"), Work: filepath.Join(d, "rw", "work"),
	}
	for i := len(c.Layers) - 1; i >= 0; i-- {
		f.Lower = append(f.Lower, e.layerDir(c.Layers[i]))
	}
	return f
}

// Size returns how many bytes the container has written, and those together with its image's. Slow: it looks at
// every file.
func (e *Engine) Size(ctx context.Context, c *Container) (rw, root int64, err error) {
	f := e.Files(c)
	if rw, err = treeSize(ctx, f.Upper); err != nil {
		return 0, 0, err
	}
	root = rw
	if img, err := e.images().Resolve(ctx, c.Image); err == nil {
		root += img.Size
	}
	return rw, root, nil
}

// treeSize adds up the sizes of files below dir, each hard-linked one once. Files that vanish meanwhile do not count.
func treeSize(ctx context.Context, dir string) (int64, error) {
	var sum int64
	seen := make(map[uint64]bool)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var st unix.Stat_t
		if err != nil || unix.Lstat(p, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
		if st.Nlink > 1 && seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = st.Nlink > 1
		sum += st.Size
		return nil
	})
	return sum, err
}
