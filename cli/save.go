package cli

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hull/client"
	"hull/errdef"
	"hull/state"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
)

// saveFormats are podman's names for archives other than Docker's of today.
const saveFormats = "docker-archive oci-archive oci-dir docker-dir"

func buildSave(a *app, cmd *cobra.Command) {
	var file string
	var platforms listFlag
	var o client.ImageSaveOptions
	cmd.Use += " [OPTIONS] IMAGE [IMAGE...]"
	cmd.Args = a.arguments(1, -1)
	f := cmd.Flags()
	f.StringVarP(&file, "output", "o", "", "Write to a file instead of stdout")
	f.StringVar(&o.Format, "format", "", "Write another kind of archive: docker-archive or oci-archive; oci-dir or docker-dir for a directory")
	f.Var(&platforms, "platform", "Save only these platforms, os/arch[/variant], parted by commas")
	_ = cmd.RegisterFlagCompletionFunc("format", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return strings.Fields(saveFormats), cobra.ShellCompDirectiveNoFileComp
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.Format != "" && !strings.Contains(" "+saveFormats+" ", " "+o.Format+" ") {
			return errdef.Invalid("unknown format %q: want one of %s", o.Format, saveFormats)
		}
		dir := strings.HasSuffix(o.Format, "-dir")
		switch {
		case file == "" && dir:
			return errdef.Invalid("the format %s needs a directory: name one with -o", o.Format)
		case file == "" && a.out.terminal:
			return errdef.Invalid("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		o.Platforms = platforms.split()
		c, err := a.engine()
		if err != nil {
			return err
		}
		auths := map[string]registry.AuthConfig{}
		a.addOriginAuths(cmd.Context(), c, auths, true)
		o.Auths = client.EncodeAuths(auths)
		body, total, err := c.ImageSave(cmd.Context(), args, o)
		if err != nil {
			return err
		}
		defer body.Close()
		if file == "" {
			return early(io.Copy(a.Stdout, body))
		}
		p := a.newProgress(false)
		defer p.done()
		if dir {
			return early(0, writeDir(file, p.download(body, total)))
		}
		return early(0, writeWhole(file, p.download(body, total)))
	}
}

// early says more than that an archive was cut off.
func early(_ int64, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return hint(errdef.Unavailable("the archive ended early: the engine could not read all of the image"), "Its log says what is damaged; loading or pulling the image again repairs it.")
	}
	return err
}

// writeDir unpacks the archive r, files only, into a directory that is there whole or not at all. The archive may be a
// stranger's: names stay inside.
func writeDir(path string, r io.Reader) (err error) {
	if entries, err := os.ReadDir(path); err == nil && len(entries) > 0 {
		return errdef.Conflict("%s is not empty: name a new directory", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plainPathError(err)
	}
	path = filepath.Clean(path)
	tmp := filepath.Join(filepath.Dir(path), state.TempName())
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return besideError(path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, state.Remove(tmp))
		}
	}()
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if hdr.Typeflag == tar.TypeReg {
			if err := writeIn(root, hdr.Name, tr); err != nil {
				return err
			}
		}
	}
	return os.Rename(tmp, path)
}

func writeIn(root *os.Root, name string, r io.Reader) (err error) {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r)
	return err
}
