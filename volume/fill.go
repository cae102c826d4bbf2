package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hull/state"

	"golang.org/x/sys/unix"
)

// Empty reports whether the volume has no content. One that stands for another file system is looked at by nobody here
// and never empty.
func (h *Held) Empty() (bool, error) {
	if h.Mount() != nil {
		return false, nil
	}
	d, err := openDir(h.Path())
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return false, nil // one of the ids of the user's containers owns it
	}
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	if err == io.EOF {
		return true, nil
	}
	return false, err
}

// Fill copies what is in the directory src, an open one, into the empty volume, which takes owner, mode, attributes and
// times of src too. A container sees all of it or nothing: a killed Fill leaves the volume empty, or is finished by
// the next one who holds it.
func (h *Held) Fill(ctx context.Context, src *os.File) error {
	if _, err := src.Readdirnames(1); err == io.EOF {
		return h.resemble(src)
	} else if err != nil {
		return err
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return h.FillBy(func(dir string) error {
		dst, err := openDir(dir)
		if err != nil {
			return err
		}
		defer dst.Close()
		return state.CopyTree(ctx, int(src.Fd()), int(dst.Fd()))
	})
}

// resemble is Fill for a directory with nothing in it.
func (h *Held) resemble(src *os.File) error {
	data, err := openDir(h.Path())
	if err != nil {
		return err
	}
	defer data.Close()
	err = state.CopyAttributes(int(src.Fd()), int(data.Fd()))
	if err == nil && !h.volatile {
		err = data.Sync()
	}
	return err
}

// FillBy is Fill with what write makes of a new directory.
func (h *Held) FillBy(write func(dir string) error) (err error) {
	tmp := filepath.Join(h.dir, state.TempName())
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.store.remove(tmp))
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	if !h.volatile {
		if err := state.SyncTree(h.dir); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp, filepath.Join(h.dir, copyDir)); err != nil {
		return err
	}
	if err := h.settle(); err != nil {
		return err
	}
	if h.volatile {
		return nil
	}
	return state.SyncTree(h.dir)
}

// Ready returns the volume called name with whatever a killed Fill had begun finished: before a container starts.
func (s *Store) Ready(name string) (*Volume, error) {
	v, err := s.Get(name)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(v.dir, copyDir)); isMissing(err) && v.Damaged == "" {
		return v, nil
	}
	h, err := s.HoldExisting(context.Background(), name)
	if err != nil {
		return nil, err
	}
	h.Release()
	return h.Volume, nil
}

// settle finishes what a killed Fill began, and removes what it had not brought far enough. It costs one failed open
// when there is nothing to do.
func (h *Held) settle() error {
	names, err := readNames(h.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		switch {
		case n == copyDir:
			err = h.store.move(filepath.Join(h.dir, n), h.Path())
		case strings.HasPrefix(n, state.TempPrefix):
			err = h.store.remove(filepath.Join(h.dir, n))
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", h.Name, err)
		}
	}
	return nil
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}
