package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
			return nil
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
