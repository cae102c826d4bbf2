package build

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"hull/state"
)

func removeAll(dir string) error { return state.Remove(dir) }

func copyTree(ctx context.Context, from, to int) error { return state.CopyTree(ctx, from, to) }

// copyFile copies a regular file with its owner and mode.
func copyFile(from, to string, st *unix.Stat_t) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return errors.Join(dst.Chown(int(st.Uid), int(st.Gid)), unix.Fchmod(int(dst.Fd()), st.Mode&0o7777))
}
