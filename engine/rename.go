package engine

import (
	"context"
	"errors"
	"strings"

	"hull/errdef"
	"hull/monitor"
)

// Rename gives the container another name. The old one is free only once the new one is on disk.
func (e *Engine) Rename(ctx context.Context, name, to string) error {
	to = strings.TrimPrefix(to, "/")
	if to == "" {
		return errdef.Invalid("Neither old nor new names may be empty")
	}
	if err := checkName(to); err != nil {
		return err
	}
	c, err := e.use(ctx, name)
	if err != nil {
		return err
	}
	l, err := e.lock(ctx, c.ID)
	if err != nil {
		return err
	}
	defer l.Unlock()
	r, err := e.readRecord(e.dir(c.ID))
	if isMissing(err) {
		return noSuchContainer(name)
	}
	if err != nil {
		return err
	}
	old := r.Name
	if old == to {
		return errdef.Invalid("Renaming a container with the same name as its current name")
	}
	if err := e.claimName(to, c.ID); err != nil {
		return err
	}
	r.Name = to
	if err := r.write(e.dir(c.ID)); err != nil {
		_ = e.releaseName(to, c.ID)
		return e.storeError(err)
	}
	if err := e.releaseName(old, c.ID); err != nil {
		return err
	}
	c.Name = to
	// The monitor tells of the end, by name; without one the next start knows.
	if _, err := e.ask(ctx, c.ID, &monitor.Request{Op: monitor.OpRename, Name: to}); err != nil && !errors.Is(err, monitor.ErrNoMonitor) {
		return err
	}
	e.containerEvent(c, "rename", "oldName", "/"+old)
	return nil
}
