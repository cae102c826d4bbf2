package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Destroy kills what is left in the group and removes it, in one step where nothing is left: the usual end.
func (g *Group) Destroy(ctx context.Context) error {
	if g.rmdirs() == nil {
		return nil
	}
	return errors.Join(g.Kill(ctx), g.Remove(ctx))
}

// Remove removes the group and groups below it from every hierarchy. Processes in it are not touched: then,
// after a short wait for those that are just exiting, the error names them.
func (g *Group) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := g.rmdirs()
		if err == nil {
			return nil
		}
		for _, d := range g.dirs {
			if below := removeBelow(d.path); below != nil && !errors.Is(below, unix.EBUSY) {
				return below
			}
		}
		if err = g.rmdirs(); err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if remain := g.remaining(); remain != nil {
				return remain
			}
			return err
		}
	}
}

// Prune removes the group wherever nothing is in it, neither processes nor groups, and leaves it be elsewhere. It is
// for the parents that Make made: they stay when the last container goes, because another may be on its way in.
func (g *Group) Prune() {
	for _, d := range g.dirs {
		unix.Rmdir(d.path)
	}
}

// rmdirs removes the group's directories, as far as they have nothing below and no process in them. The v2 one, which
// a process enters first and whose groups are killed as a whole, goes first: while it stays, all stay.
func (g *Group) rmdirs() error {
	for _, v2 := range []bool{true, false} {
		for _, d := range g.dirs {
			if d.v2 != v2 {
				continue
			}
			if err := unix.Rmdir(d.path); err != nil && err != unix.ENOENT {
				return &os.PathError{Op: "remove cgroup", Path: d.path, Err: err}
			}
		}
	}
	return nil
}

func removeBelow(top string) error {
	return walk(top, nil, func(parent int, name string) error {
		if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && !gone(err) {
			return fmt.Errorf("remove cgroup %q below %s: %w", name, top, err)
		}
		return nil
	})
}

// walk visits the group at top and all below: enter is called with the descriptor of each before those below it,
// leave for each but top after those below it. A top that does not exist is no error. A container may have made
// the groups below, with paths of any length and depth: so no path is put together, and at most two
// descriptors are open. (cgroup file systems have no symbolic links, and rename only within a directory.)
func walk(top string, enter func(dir int) error, leave func(parent int, name string) error) error {
	dir, err := open(top, unix.O_DIRECTORY|unix.O_RDONLY)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { unix.Close(dir) }()
	move := func(name string) error {
		next, err := openat(dir, name, unix.O_DIRECTORY|unix.O_RDONLY)
		if err == nil {
			unix.Close(dir)
			dir = next
		}
		return err
	}
	type level struct {
		name string
		todo []string
	}
	var stack []level
	arrive := func(name string) error {
		if enter != nil {
			if err := enter(dir); err != nil {
				return err
			}
		}
		todo, err := groupsIn(dir)
		stack = append(stack, level{name, todo})
		return err
	}
	if err := arrive(""); err != nil {
		return err
	}
	for {
		l := &stack[len(stack)-1]
		if len(l.todo) > 0 {
			name := l.todo[0]
			l.todo = l.todo[1:]
			if err := move(name); gone(err) {
				continue
			} else if err != nil {
				return err
			}
			if err := arrive(name); err != nil {
				return err
			}
			continue
		}
		if len(stack) == 1 {
			return nil
		}
		if err := move(".."); err != nil {
			return err
		}
		if leave != nil {
			if err := leave(dir, l.name); err != nil {
				return err
			}
		}
		stack = stack[:len(stack)-1]
	}
}

// groupsIn lists the groups directly in dir. dir stays open.
func groupsIn(dir int) ([]string, error) {
	again, err := openat(dir, ".", unix.O_DIRECTORY|unix.O_RDONLY)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "cgroup")
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil && !gone(err) {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !e.IsDir() })
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}
