package engine

import (
	"context"
	"errors"
	"io"
	"strings"

	"hull/errdef"
	"hull/image/layer"
	"hull/runtime/files"
)

// FileStat describes a file of a container.
type FileStat = files.Stat

// CopyOptions are for CopyTo.
type CopyOptions struct {
	// SameKind refuses to put a directory in the place of something else, or the other way round.
	SameKind bool
}

// Stat describes the file at path in the container, running or not: with its volumes and binds, without /proc and /sys.
// The last component is not followed when it is a symbolic link, unless a slash or /. comes behind it.
func (e *Engine) Stat(ctx context.Context, name, path string) (*FileStat, error) {
	w, err := e.workOn(ctx, name, path, &files.Job{Op: files.OpStat}, nil)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.reply.Stat, nil
}

// CopyFrom returns a tar of what is at path, as Stat finds it, and its description. As long as it is not closed, a
// container that does not run is not started.
func (e *Engine) CopyFrom(ctx context.Context, name, path string) (*FileStat, io.ReadCloser, error) {
	w, err := e.workOn(ctx, name, path, &files.Job{Op: files.OpRead}, nil)
	if err != nil {
		return nil, nil, err
	}
	e.containerEvent(w.of, "archive-path", "path", path)
	return w.reply.Stat, w, nil
}

// CopyTo extracts a tar, plain or compressed, into the directory path of the container. The files get the owners that
// the tar says, as ids of the container. Those extracted before an error stay.
func (e *Engine) CopyTo(ctx context.Context, name, path string, in io.Reader, o CopyOptions) error {
	plain, _, err := layer.Decompress(in) // here: what the image brings as xz or unpigz is never run (CVE-2026-41567)
	if err != nil {
		return err
	}
	w, err := e.workOn(ctx, name, path, &files.Job{Op: files.OpWrite, SameKind: o.SameKind}, plain)
	if err != nil {
		return err
	}
	e.containerEvent(w.of, "extract-to-dir", "path", path)
	return w.Close()
}

// workOn is work for the path of a container. It closes in, as work does.
func (e *Engine) workOn(ctx context.Context, name, path string, job *files.Job, in io.ReadCloser) (_ *worker, err error) {
	begun := false
	defer func() {
		if in != nil && !begun {
			in.Close()
		}
	}()
	if path == "" {
		return nil, errdef.Invalid("bad parameter: the path of the file in the container is missing")
	}
	if strings.ContainsRune(path, 0) {
		return nil, errdef.Invalid("bad parameter: the path has a NUL byte")
	}
	c, err := e.use(ctx, name)
	if err != nil {
		return nil, err
	}
	job.Path, begun = path, true
	w, err := e.work(ctx, c, job, in)
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return nil, errdef.NotFound("Could not find the file %s in container %s", clip(path), clip(name))
	case errors.Is(err, errdef.ErrForbidden) && strings.Contains(err.Error(), "read-only file system"):
		if c.Host.ReadOnly {
			return nil, errdef.Forbidden("container rootfs is marked read-only: %w", err)
		}
		return nil, errdef.Forbidden("mounted volume is marked read-only: %w", err)
	}
	return w, e.storeError(err)
}
