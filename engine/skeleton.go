package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"hull/state"
)

// The skeleton is a layer of ours below every image: the places where a container's own file systems and files are
// mounted. An image that has them hides it; for one that has not, each start would make them in the writable layer,
// copying /etc up for it, and they would show as changes of the container.
const skeletonDir = "skeleton-1" // a new number for a new content

// skeleton returns the directory of the skeleton, made when it is not there yet.
func (e *Engine) skeleton() (string, error) {
	dir := filepath.Join(e.root, skeletonDir)
	if _, err := os.Lstat(dir); err == nil {
		return dir, nil
	}
	tmp := filepath.Join(e.root, state.TempName())
	err := makeSkeleton(tmp)
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		if rmErr := state.Remove(tmp); rmErr != nil {
			return "", rmErr
		}
		if errors.Is(err, fs.ErrExist) { // somebody else was quicker
			return dir, nil
		}
		return "", e.storeError(err)
	}
	return dir, nil // not synced: it holds nothing but names
}

func makeSkeleton(dir string) error {
	for _, d := range []string{"", "dev", "etc", "proc", "sys"} {
		d = filepath.Join(dir, d)
		if err := errors.Join(os.Mkdir(d, 0o755), os.Chmod(d, 0o755)); err != nil { // whatever the umask
			return err
		}
	}
	for _, f := range []string{"hostname", "hosts", "resolv.conf"} {
		f = filepath.Join(dir, "etc", f)
		if err := errors.Join(os.WriteFile(f, nil, 0o644), os.Chmod(f, 0o644)); err != nil {
			return err
		}
	}
	return nil
}
