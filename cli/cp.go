package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"hull/archive"
	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

type copyOptions struct {
	archive, follow, quiet bool
}

func buildCp(a *app, cmd *cobra.Command) {
	var o copyOptions
	cmd.Use += " [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       " + a.Name + " cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
	cmd.Args = a.arguments(2, 2)
	f := cmd.Flags()
	f.BoolVarP(&o.archive, "archive", "a", false, "Keep owners, by number")
	f.BoolVarP(&o.follow, "follow-link", "L", false, "Copy what a symbolic link SRC_PATH leads to")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing about the work")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.quiet = o.quiet || !cmd.Flags().Changed("quiet") && !a.out.terminal
		fromName, from := splitCopy(args[0])
		toName, to := splitCopy(args[1])
		switch {
		case from == "" || to == "":
			return errdef.Invalid("source and destination can not be empty")
		case fromName != "" && toName != "":
			return hint(errdef.Invalid("copying between containers is not supported"), "Copy to the local file system first, or "+
				a.Name+" cp "+args[0]+" - | "+a.Name+" cp - "+args[1])
		case fromName == "" && toName == "":
			return errdef.Invalid("must specify at least one container source")
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		if fromName != "" {
			return a.copyFrom(cmd.Context(), c, fromName, from, to, o)
		}
		return a.copyTo(cmd.Context(), c, from, toName, to, o)
	}
}

// splitCopy tells CONTAINER:PATH from a local path: one that is absolute, has no colon, or begins with a dot.
func splitCopy(arg string) (container, path string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	name, rest, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(name, ".") {
		return "", arg
	}
	return name, rest
}

// meansDir says whether a path can only be that of a directory, by its end.
func meansDir(p string) bool {
	return strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || p == "."
}

// meansContent says whether the files in a directory are meant and not the directory itself.
func meansContent(p string) bool { return strings.HasSuffix(p, "/.") || p == "." }

// The refusals of a copy, in Docker's words.
var (
	errCannotCopyDir = copyError("cannot copy directory")
	errNoSuchDir     = copyError("no such directory")
	errNotDir        = copyError("not a directory")
)

// copyError is an error that needs no code at program start.
type copyError string

func (e copyError) Error() string { return string(e) }

// target is where something copied comes to be: the directory, and its name there; "." for the content of a directory.
type target struct{ dir, name string }

// aim applies cp's rules, the same in both directions. name is what the source is called.
func aim(name string, fromDir, content bool, to string, exists, toDir bool) (target, error) {
	switch {
	case exists && toDir && fromDir && content:
		return target{to, "."}, nil
	case exists && toDir:
		return target{to, name}, nil
	case exists && fromDir:
		return target{}, errdef.As(errdef.ErrInvalid, errCannotCopyDir)
	case exists && meansDir(to):
		return target{}, errdef.As(errdef.ErrInvalid, errNotDir)
	case !exists && !fromDir && meansDir(to):
		return target{}, errdef.As(errdef.ErrInvalid, errNoSuchDir)
	}
	to = strings.TrimSuffix(strings.TrimSuffix(to, "."), "/")
	return target{path.Dir(to), path.Base(to)}, nil
}

// copyTo copies the local path from, or a tar from stdin, into a container.
func (a *app) copyTo(ctx context.Context, c *client.Client, from, name, to string, o copyOptions) error {
	exists, isDir := false, false
	st, err := c.ContainerStatPath(ctx, name, to)
	if err == nil && st.Mode&fs.ModeSymlink != 0 {
		to = st.LinkTarget
		st, err = c.ContainerStatPath(ctx, name, to)
	}
	if err == nil { // any other failure shows when we write
		exists, isDir = true, st.Mode.IsDir()
		if !isDir && !st.Mode.IsRegular() {
			return errdef.Invalid("destination %q must be a directory or a regular file", name+":"+to)
		}
	}
	if from == "-" {
		if !isDir {
			if err != nil && errors.Is(err, errdef.ErrNotFound) {
				return c.CopyToContainer(ctx, name, to, strings.NewReader("")) // says what is missing
			}
			return errdef.Invalid("destination %q must be a directory", name+":"+to)
		}
		return c.CopyToContainer(ctx, name, to, a.Stdin)
	}
	src, err := a.openSource(from, o.follow)
	if err != nil {
		return err
	}
	defer src.dir.Close()
	t, err := aim(src.name, src.isDir, meansContent(from), to, exists, isDir)
	if err != nil {
		if _, _, e := c.ContainerInspect(ctx, name, false); e != nil { // then that is the reason
			return e
		}
		return err
	}
	pr, pw := io.Pipe()
	var writing sync.WaitGroup
	writing.Go(func() { pw.CloseWithError(src.write(ctx, pw, t.name, o.archive)) })
	p := a.newProgress(o.quiet)
	sent := &counted{Reader: p.upload(pr)}
	err = c.CopyToContainer(ctx, name, t.dir, sent)
	pr.CloseWithError(io.ErrClosedPipe)
	writing.Wait()
	p.done()
	if err == nil && !o.quiet {
		a.err.printf("Successfully copied %s to %s\n", size(sent.n), name+":"+to)
	}
	return err
}

// source is a local file to be copied.
type source struct {
	dir   *os.File
	base  string // in dir
	name  string // of the copy, unless somebody says otherwise
	isDir bool
}

func (a *app) openSource(p string, follow bool) (*source, error) {
	clean := filepath.Clean(p)
	name := filepath.Base(clean)
	if meansDir(p) || clean == ".." || follow {
		real, err := filepath.EvalSymlinks(clean)
		if err != nil {
			return nil, plainPathError(err)
		}
		clean = real
	}
	abs, err := filepath.Abs(clean)
	if err != nil {
		return nil, err
	}
	if name == "." || name == ".." {
		name = filepath.Base(abs)
	}
	fi, err := os.Lstat(abs)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, plainPathError(err))
	}
	if meansDir(p) && !fi.IsDir() {
		return nil, errdef.Invalid("%s: %w", p, errNotDir)
	}
	dir, err := os.Open(filepath.Dir(abs))
	if err != nil {
		return nil, plainPathError(err)
	}
	base := filepath.Base(abs)
	if base == "/" {
		base = "."
	}
	return &source{dir, base, name, fi.IsDir()}, nil
}

func (s *source) write(ctx context.Context, out io.Writer, name string, keepOwner bool) error {
	w := archive.NewWriter(out)
	if !keepOwner {
		w.Owner = new(archive.Owner) // root of the container
	}
	if err := w.Add(ctx, int(s.dir.Fd()), s.base, name); err != nil {
		return err
	}
	return w.Close()
}

// copyFrom copies a path of a container to the local path to, or as a tar to stdout.
func (a *app) copyFrom(ctx context.Context, c *client.Client, name, from, to string, o copyOptions) error {
	called := "" // what the copy is called, if not as the file
	if o.follow {
		st, err := c.ContainerStatPath(ctx, name, from)
		if err == nil && st.Mode&fs.ModeSymlink != 0 {
			called, from = st.Name, st.LinkTarget
		}
	}
	tar, st, err := c.CopyFromContainer(ctx, name, from)
	if err != nil {
		return err
	}
	defer tar.Close()
	if to == "-" {
		if a.out.terminal {
			return errdef.Invalid("refusing to write a tar to the terminal: redirect stdout")
		}
		_, err := io.Copy(a.Stdout, tar)
		return err
	}
	was := st.Name
	if called == "" {
		called = was
	}
	if was == "/" {
		was = "."
	}
	fi, err := os.Stat(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plainPathError(err)
	}
	t, err := aim(path.Base(called), st.Mode.IsDir(), meansContent(from) || was == ".", to, err == nil, err == nil && fi.IsDir())
	if err != nil {
		return err
	}
	dir, err := os.Open(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.Invalid("invalid output path: directory %q does not exist", t.dir)
	}
	if err != nil {
		return plainPathError(err)
	}
	defer dir.Close()
	p := a.newProgress(o.quiet)
	got := &counted{Reader: p.upload(tar)}
	err = archive.Extract(ctx, int(dir.Fd()), got, archive.Extraction{
		Beneath: true, SameKind: true, From: was, To: t.name,
		KeepOwner: o.archive && os.Geteuid() == 0,
	})
	p.done()
	if err != nil {
		return fmt.Errorf("copy to %s: %w", to, err)
	}
	if _, err := io.Copy(io.Discard, tar); err != nil { // a server that broke off in the padding
		return err
	}
	if !o.quiet {
		a.err.printf("Successfully copied %s to %s\n", size(got.n), to)
	}
	return nil
}

// counted counts what is read.
type counted struct {
	io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}
