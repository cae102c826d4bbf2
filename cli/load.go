package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildLoad(a *app, cmd *cobra.Command) {
	var file string
	var platforms listFlag
	var quiet bool
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.StringVarP(&file, "input", "i", "", "Read this file or directory instead of stdin")
	f.Var(&platforms, "platform", "Load only these platforms, os/arch[/variant], parted by commas")
	f.BoolVarP(&quiet, "quiet", "q", false, "Print nothing about the work")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" && a.screen.isTerminal() {
			return hint(errdef.Invalid("requested load from stdin, but stdin is empty"), "Name a file with -i, or send one to stdin.")
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		in, err := a.archive(file)
		if err != nil {
			return err
		}
		defer in.Close()
		p := a.newProgress(quiet)
		m, err := c.ImageLoad(cmd.Context(), p.upload(in), quiet || !p.live, platforms.split())
		if err != nil {
			p.done()
			return ofFile(file, err)
		}
		return ofFile(file, p.show(m))
	}
}

// ofFile names the file that err, when it is about what was sent, is about.
func ofFile(name string, err error) error {
	if name == "" || name == "-" || !errors.Is(err, errdef.ErrInvalid) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// archive is input for what may be a directory, such as an OCI image layout or skopeo's dir: that is packed on the way.
func (a *app) archive(name string) (io.ReadCloser, error) {
	fi, err := os.Stat(name)
	if name == "" || name == "-" || err != nil || !fi.IsDir() {
		return a.input(name)
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, plainPathError(err))
	}
	r, w := io.Pipe()
	go func() { // ends with its last file, or when r is closed
		defer root.Close()
		w.CloseWithError(packFiles(w, root))
	}()
	return r, nil
}

// packFiles writes the regular files below root as a tar.
func packFiles(w io.Writer, root *os.Root) error {
	tw := tar.NewWriter(w)
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: fi.Size(), Mode: 0o644}); err != nil {
			return err
		}
		_, err = io.CopyN(tw, f, fi.Size())
		return err
	})
	if err != nil {
		return err
	}
	return tw.Close()
}
