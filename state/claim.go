package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Taken is the error of a claim that somebody else holds.
type Taken struct {
	Name   string
	Target string // whom the claim belongs to
}

func (e *Taken) Error() string { return e.Name + " is taken by " + e.Target }

// Claim makes the symbolic link dir/name to target, atomically with its content. Of any number of claimers at
// once exactly one succeeds; the others get *Taken. A claim whose target exists no longer is stolen, also by
// exactly one. To claim what one holds already succeeds.
//
// The target is resolved as a symbolic link is, relative to dir; it has to exist before the claim is made and
// until after it is released, or the claim counts as stale.
func Claim(dir, name, target string) error {
	link := filepath.Join(dir, name)
	for {
		err := os.Symlink(target, link)
		if err == nil || !errors.Is(err, fs.ErrExist) {
			return err
		}
		holder, alive, err := Holder(dir, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // released in between
		case err != nil:
			return err
		case holder == target:
			if held, err := holds(dir, name, target); held || err != nil {
				return err
			}
			continue
		case alive:
			return &Taken{name, holder}
		}
		if done, err := steal(dir, name, target); done || err != nil {
			return err
		}
	}
}

// steal replaces a stale claim. The lock keeps two thieves, and Release, apart; makers of a fresh claim need
// no lock, since they cannot replace a link.
func steal(dir, name, target string) (done bool, err error) {
	l, err := lock(dir, unix.LOCK_EX, 10*time.Second)
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	if _, alive, err := Holder(dir, name); alive || err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	tmp := filepath.Join(dir, TempName())
	if err := os.Symlink(target, tmp); err != nil {
		return false, err
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		os.Remove(tmp)
		return false, err
	}
	return true, nil
}

// holds reports whether target has the claim dir/name. A sweeper that saw it stale a moment ago has removed it before
// the lock is ours, and whoever comes later sees that target exists.
func holds(dir, name, target string) (bool, error) {
	l, err := lock(dir, unix.LOCK_EX, 10*time.Second)
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	holder, _, err := Holder(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return holder == target, err
}

// Holder returns the target of the claim dir/name and whether that exists; fs.ErrNotExist if there is no claim.
func Holder(dir, name string) (target string, alive bool, err error) {
	link := filepath.Join(dir, name)
	target, err = os.Readlink(link)
	if err != nil {
		return "", false, err
	}
	_, err = os.Stat(link)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return target, false, nil
	}
	return target, err == nil, err
}

// SweepClaims removes every claim of dir that is stale. It reads the whole directory, and locks it only when it found
// one; a missing directory has none.
func SweepClaims(dir string) error {
	return removeClaims(dir, func(name string) bool {
		_, alive, err := Holder(dir, name)
		return err == nil && !alive
	})
}

// ReleaseAll gives back every claim of dir that target holds, for who no longer knows which those are. It reads the
// whole directory.
func ReleaseAll(dir, target string) error {
	return removeClaims(dir, func(name string) bool {
		holder, err := os.Readlink(filepath.Join(dir, name))
		return err == nil && holder == target
	})
}

// removeClaims removes the claims of dir that are unwanted, asked a second time under the lock.
func removeClaims(dir string, unwanted func(name string) bool) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !unwanted(name) })
	if len(names) == 0 {
		return nil
	}
	l, err := lock(dir, unix.LOCK_EX, 10*time.Second)
	if err != nil {
		return err
	}
	defer l.Unlock()
	var errs []error
	for _, name := range names {
		if unwanted(name) {
			errs = append(errs, os.Remove(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

// Release gives the claim dir/name back if target holds it; else it does nothing.
func Release(dir, name, target string) error {
	l, err := lock(dir, unix.LOCK_EX, 10*time.Second)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Unlock()
	link := filepath.Join(dir, name)
	holder, err := os.Readlink(link)
	if errors.Is(err, fs.ErrNotExist) || err == nil && holder != target {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(link)
}
