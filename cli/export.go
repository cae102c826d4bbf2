package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"hull/errdef"
	"hull/state"

	"github.com/spf13/cobra"
)

func buildExport(a *app, cmd *cobra.Command) {
	var file string
	cmd.Use += " [OPTIONS] CONTAINER"
	cmd.Args = a.arguments(1, 1)
	cmd.Flags().StringVarP(&file, "output", "o", "", "Write to a file instead of stdout")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "" && a.out.terminal {
			return errdef.Invalid("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		tar, err := c.ContainerExport(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		defer tar.Close()
		if file == "" {
			_, err := io.Copy(a.Stdout, tar)
			return err
		}
		return writeWhole(file, tar)
	}
}

// besideError is err, of making a temporary file beside path, as one of path.
func besideError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.Invalid("invalid output path: directory %q does not exist", filepath.Dir(path))
	}
	if pe := new(fs.PathError); errors.As(err, &pe) {
		return errors.New(path + ": " + pe.Err.Error())
	}
	return err
}

// writeWhole writes a file that is there whole or, as it was before, not at all. What is no regular file, such as a
// device or a named pipe, is written to as it is.
func writeWhole(path string, r io.Reader) (err error) {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		if fi.IsDir() {
			return errdef.Invalid("%s is a directory: name a file", path)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return plainPathError(err)
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	tmp := filepath.Join(filepath.Dir(path), state.TempName())
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return besideError(path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	to := state.NewSparse(f)
	if _, err = io.Copy(to, r); err == nil {
		err = to.Close()
	}
	if err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
