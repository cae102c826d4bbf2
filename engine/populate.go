package engine

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/kernel"
	"hull/volume"

	"golang.org/x/sys/unix"
)

// How volumes and containers refer to each other. A container's definition names its volumes; nothing in a volume names
// the containers that use it. Whoever makes a container holds its volumes from before the definition is in place until
// after, and whoever removes a volume holds it while looking at all definitions: so neither misses the other.
//
//	create   limbo/ID with the definition · hold the volumes, made if absent · copy up · rename limbo/ID · release
//	remove   hold the volume · does a definition name it? · rename the volume away · release
//
// The anonymous volumes of a container that never came to be are found by the definition in limbo.

// anonymousLabel marks an anonymous volume for Docker's tools.
const anonymousLabel = "com.docker.volume.anonymous"

// dropWait bounds how long the end of a container waits for each of its anonymous volumes.
const dropWait = 10 * time.Second

// dropFile in the directory of a container that is being removed says that its anonymous volumes go with it.
const dropFile = "drop-volumes"

func (e *Engine) volumes() *volume.Store {
	s := volume.Open(e.root)
	s.Told = func(action, name string) { e.event("volume", action, name, map[string]string{"driver": volume.Driver}) }
	if os.Geteuid() != 0 {
		s.Discard, s.Move = e.discard, e.moveInside
	}
	return s
}

// holdVolumes makes the volumes of r that are not there, fills empty ones with what the image has in their place, and
// keeps all of them until release is called.
func (e *Engine) holdVolumes(ctx context.Context, r *record) (release func(), err error) {
	wanted := make(map[string]*MountPoint)
	for i := range r.Mounts {
		if m := &r.Mounts[i]; m.Type == mountVolume && wanted[m.Name] == nil {
			wanted[m.Name] = m
		}
	}
	if len(wanted) == 0 {
		return func() {}, nil
	}
	var held []*volume.Held
	all := func() {
		for _, h := range held {
			h.Release()
		}
	}
	defer func() {
		if err != nil {
			all()
		}
	}()
	up := copyUp{e: e, layers: r.Layers, scratch: e.limbo(r.ID)}
	defer up.close()
	for _, name := range slices.Sorted(maps.Keys(wanted)) { // in this order, or two would wait for each other
		m := wanted[name]
		h, err := e.holdVolume(ctx, r, m)
		if err != nil {
			return nil, err
		}
		held = append(held, h)
		if m.NoCopy || m.Borrowed || m.Subpath != "" {
			continue
		}
		if err := up.fill(ctx, h, m.Target); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (e *Engine) holdVolume(ctx context.Context, r *record, m *MountPoint) (h *volume.Held, err error) {
	if m.Borrowed {
		h, err = e.volumes().HoldExisting(ctx, m.Name)
	} else {
		spec := volume.Spec{Name: m.Name, Driver: m.Driver, Labels: m.Labels, Options: m.DriverOptions}
		if m.Anonymous {
			spec.Owner, spec.Volatile = r.ID, r.Host.AutoRemove
			spec.Labels = map[string]string{anonymousLabel: ""}
			maps.Copy(spec.Labels, m.Labels)
		}
		h, err = e.volumes().Hold(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	if h.Owner != "" && h.Owner != r.ID { // somebody else's anonymous one
		if err := h.Share(); err != nil {
			h.Release()
			return nil, err
		}
	}
	return h, nil
}

// copyUp fills empty volumes from the file system of the image of a new container.
type copyUp struct {
	e       *Engine
	layers  []string // chain ids, lowest first
	scratch string   // a directory of our own
	root    *os.File // of the image, mounted when first needed
}

func (u *copyUp) close() {
	if u.root != nil {
		u.root.Close()
	}
}

// fill gives the empty volume h what the image has at target. Without a directory there, it stays as it is.
func (u *copyUp) fill(ctx context.Context, h *volume.Held, target string) error {
	empty, err := h.Empty()
	if err != nil || !empty || len(u.layers) == 0 {
		return err
	}
	if os.Geteuid() != 0 {
		return u.e.fillInside(h, u.layers, target, u.scratch)
	}
	if err := u.mount(); err != nil {
		return err
	}
	// The image's links lead where they lead in the container: nowhere outside of the image.
	fd, err := unix.Openat2(int(u.root.Fd()), target, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return noCopyUp(&os.PathError{Op: "open in image", Path: target, Err: err}, target)
	}
	src := os.NewFile(uintptr(fd), target)
	defer src.Close()
	return h.Fill(ctx, src)
}

// mount mounts the image, read-only and unseen.
func (u *copyUp) mount() error {
	if u.root != nil {
		return nil
	}
	lower, err := u.e.imageLower(u.layers)
	if err != nil {
		return err
	}
	fd, err := (&kernel.Overlay{Lower: lower, Scratch: u.scratch}).Mount()
	if err != nil {
		return err
	}
	u.root = os.NewFile(uintptr(fd), "image")
	return nil
}

// fillInside is fill for an ordinary user, who mounts and copies as root of the user namespace of their containers.
func (e *Engine) fillInside(h *volume.Held, layers []string, target, scratch string) error {
	lower, err := e.imageLower(layers)
	if err != nil {
		return err
	}
	ids, err := ownIDs()
	if err != nil {
		return err
	}
	err = h.FillBy(func(dir string) error {
		return e.inside(ids, unix.CLONE_NEWNS, append([]string{"copy-up", scratch, target, dir}, lower...)...)
	})
	return noCopyUp(err, target)
}

func (e *Engine) moveInside(from, to string) error {
	ids, err := ownIDs()
	if err != nil {
		return err
	}
	return e.inside(ids, 0, "move-into", from, to)
}

// noCopyUp says what it means that the place of a volume cannot be opened in the image.
func noCopyUp(err error, target string) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR):
		return errdef.Invalid("cannot mount volume over existing file, file exists %s", clip(target))
	}
	return err
}

// imageLower are the layers of an image as overlayfs wants them for a mount without a writable layer: topmost first,
// and never a single one. What is added is an empty directory.
func (e *Engine) imageLower(layers []string, over ...string) ([]string, error) {
	lower := e.RootDirs(layers, over)
	if len(lower) > 1 {
		return lower, nil
	}
	skeleton, err := e.skeleton()
	for _, empty := range []string{"sys", "proc"}[:2-len(lower)] { // overlayfs wants two
		lower = append(lower, filepath.Join(skeleton, empty))
	}
	return lower, err
}

// dropVolumes removes the anonymous volumes of r that no other container uses; with owned set only those made for it.
// One that is in use, or cannot be removed, stays as a volume that is listed.
func (e *Engine) dropVolumes(r *record, owned bool) error {
	for _, m := range r.Mounts {
		if !m.Anonymous || owned && m.Borrowed {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), dropWait)
		err := e.volumes().Drop(ctx, m.Name, e.unused)
		cancel()
		if err != nil && !errors.Is(err, errdef.ErrNotFound) && !errors.Is(err, errdef.ErrConflict) {
			return err
		}
	}
	return nil
}

// unused refuses a volume, held by the caller, that containers have.
func (e *Engine) unused(v *volume.Volume) error {
	if v.Private() { // the end of a container asks nobody but itself
		if e.exists(v.Owner) {
			return inUse(v, []string{v.Owner})
		}
		return nil
	}
	users, err := e.volumeUsers()
	if err == nil && len(users[v.Name]) > 0 {
		err = inUse(v, users[v.Name])
	}
	return err
}

func inUse(v *volume.Volume, ids []string) error {
	return errdef.Conflict("remove %s: volume is in use - [%s]", v.Name, strings.Join(ids, ", "))
}

// volumeUsers returns the containers that have each volume. A container whose definition cannot be used might have any, so
// then there is no answer.
func (e *Engine) volumeUsers() (map[string][]string, error) {
	users := make(map[string][]string)
	var unknown []*Container
	err := e.each(func(c *Container) {
		if !c.known() {
			unknown = append(unknown, c)
		}
		for _, m := range c.Mounts {
			if m.Type == mountVolume && !slices.Contains(users[m.Name], c.ID) {
				users[m.Name] = append(users[m.Name], c.ID)
			}
		}
	})
	if err == nil {
		err = e.unknown(unknown, "volumes")
	}
	return users, err
}
