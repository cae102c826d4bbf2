// Package engine is what Hull does: the life of a container from create to remove, exec, logs and images,
// over files and kernel objects only. It is a library; the Engine API (package api) is its face.
//
//	e := engine.Open(root, run, engine.Options{})
//	id, warnings, err := e.Create(ctx, "web", &engine.Config{Image: "box"}, &engine.Host{}, false)
//	warnings, err = e.Start(ctx, id)
//
// No fact lives only in an Engine: any number of them, in any number of processes, share one store, and each
// may die at any instruction. What is running is what has a live monitor; whoever touches a container whose
// monitor died repairs it first.
//
// Beware: an Engine opens nothing until used and keeps nothing open, so there is no Close.
package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"hull/config"
	"hull/errdef"
	"hull/state"
	"hull/state/journal"
	"hull/trace"

	"golang.org/x/sys/unix"
)

// DefaultRoot is the store of an engine run by root.
const DefaultRoot = "/var/lib/hull"

// DefaultRun is where an engine run by root keeps what does not survive a reboot.
const DefaultRun = "/run/hull"

// Options are what the main program wires into an engine. All are optional.
type Options struct {
	Version string       // of Hull, for version and info
	Commit  string       // of the source Hull was built from
	Trace   *trace.Trace // where steps are recorded; nil records nothing

	// Config is the administrator's file of settings; nil is none.
	Config *config.Reader

	// Runtime is hull-runtime: the path of the binary, or "" for the one hull carries (package payload).
	Runtime string
	// Self is the command line of this program with the flags that choose this root and run, to which the
	// monitor appends "event exit ID". Empty: nobody is told of an exit.
	Self []string
}

// Engine combines the nouns. Its methods are safe for concurrent use.
type Engine struct {
	root, run string
	opt       Options
	heads     heads
	journal   *journal.Journal
}

// Open returns the engine of a store. It touches nothing; what is missing is made when first needed.
func Open(root, run string, o Options) *Engine {
	return &Engine{root: root, run: run, opt: o, journal: journal.Open(filepath.Join(root, "events"))}
}

// Root is the directory of the store.
func (e *Engine) Root() string { return e.root }

// Run is the directory of what does not survive a reboot.
func (e *Engine) Run() string { return e.run }

// Instance names this engine among those of the machine, in cgroups and other names that all of them share.
func (e *Engine) Instance() string {
	if e.root == DefaultRoot {
		return "hull"
	}
	sum := sha256.Sum256([]byte(e.root))
	return "hull-" + hex.EncodeToString(sum[:4])
}

// Paths of the store, all absolute.
func (e *Engine) containers() string      { return filepath.Join(e.root, "containers") }
func (e *Engine) names() string           { return filepath.Join(e.root, "names") }
func (e *Engine) dir(id string) string    { return filepath.Join(e.root, "containers", id) }
func (e *Engine) runDir(id string) string { return filepath.Join(e.run, "containers", id) }

// cgroup of a container, below every hierarchy, unless it was given another parent.
func (e *Engine) cgroup(id string) string { return e.Instance() + "/" + id }

// ready makes sure that the store exists and is of a schema this engine knows: one read when it does.
func (e *Engine) ready() error {
	if err := state.Open(e.root); err != nil {
		return e.storeError(err)
	}
	return nil
}

// runReady makes the directory of running containers. Only its owner may look: sockets and specs are in there.
func (e *Engine) runReady() error {
	dir := filepath.Join(e.run, "containers")
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return errdef.Forbidden("cannot make %s: choose another directory with --run or HULL_RUN: %w", dir, err)
		}
		return err
	}
	return nil
}

// storeError says what to do about a store that cannot be read or written.
func (e *Engine) storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return errdef.Forbidden("no access to the store %s: run as its owner, or choose another with --root or HULL_ROOT: %w", e.root, err)
	case errors.Is(err, unix.ENOSPC):
		return errdef.Unavailable("no space left in the store %s: free some, e.g. with hull rm, hull rmi and hull volume prune: %w", e.root, err)
	}
	return err
}
