package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/state"

	"golang.org/x/sys/unix"
)

// A container that is not yet one, or no longer, is in limbo: the directory <root>/containers/.limbo/<id>.
//
//	create   mkdir limbo/ID · lock it · config.json · mkdir ID · claim the name · volumes · rename limbo/ID over the empty ID
//	remove   lock ID · rename ID to limbo/ID · release the name · anonymous volumes · remove the tree
//
// Whoever works there holds the lock of the directory, which moves with it. What a killed process left has a free
// lock, and the next create or list removes it. The empty directory ID is what the claim of a name points at
// before there is a container; it has no config.json and so is not listed.
const limboDir = ".limbo"

func (e *Engine) limbo(id string) string { return filepath.Join(e.root, "containers", limboDir, id) }

// sweep removes what killed processes left in limbo. It costs one read of a directory that is nearly always empty,
// waits for nobody, and has no error: what cannot be removed now is tried again next time.
func (e *Engine) sweep() {
	names, err := readNames(e.limbo(""))
	if err != nil {
		return
	}
	for _, id := range names {
		if l, ok, err := state.TryLock(e.limbo(id)); err == nil && ok {
			_ = e.dissolve(id, e.tellDestroyed)
			l.Unlock()
		}
	}
}

// tellDestroyed is the event of a removal that a killed process began, unless that told it. What never got out of limbo
// has no create either.
func (e *Engine) tellDestroyed(c *Container) {
	begin := c.Created.Add(-time.Second)
	if e.recorded("create", c.ID, begin) && !e.recorded("destroy", c.ID, begin) {
		e.containerEvent(c, "destroy")
	}
}

// dissolve removes the container id that is in limbo and locked by the caller. Idempotent. tell is called when its volumes
// are gone, which Docker tells of first, and before its files are, if there is a definition and it can be read; nil when
// nobody knew the container yet.
func (e *Engine) dissolve(id string, tell func(*Container)) error {
	dir := e.limbo(id)
	// The name is released before anything is removed, so a missing definition means that it holds none.
	r, err := e.readRecord(dir)
	switch {
	case err == nil && r.Name != "":
		err = e.releaseName(r.Name, id)
	case errors.Is(err, errdef.ErrCorrupt):
		err = e.releaseNames(id)
	case isMissing(err):
		err = nil
	}
	if err != nil {
		return err
	}
	if r != nil {
		_, half := os.Lstat(e.dir(id)) // the empty directory of a half-made container
		_, marked := os.Lstat(filepath.Join(dir, dropFile))
		if half == nil || marked == nil || r.Host.AutoRemove {
			if err := e.dropVolumes(r, half == nil); err != nil {
				return err
			}
		}
		if tell != nil {
			tell(r.container())
		}
	}
	_ = unix.Rmdir(e.dir(id)) // only ever removes the empty directory of a half-made container
	return e.discard(dir)
}

// enterLimbo makes and locks the limbo directory of a new container.
func (e *Engine) enterLimbo(ctx context.Context, id string) (*state.Locked, error) {
	for {
		err := os.Mkdir(e.limbo(id), 0o700)
		if isMissing(err) {
			if err = e.makeStore(); err == nil {
				continue
			}
		}
		if err != nil && !os.IsExist(err) {
			return nil, err
		}
		l, err := state.Lock(ctx, e.limbo(id))
		if !isMissing(err) { // else a sweeper came between the two
			return l, err
		}
	}
}

// makeStore makes the directories that containers need.
func (e *Engine) makeStore() error {
	// Limbo last: where it is, others take the rest for made.
	for _, d := range []string{e.names(), e.limbo("")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// readNames lists a directory in no order; a missing one is empty.
func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
