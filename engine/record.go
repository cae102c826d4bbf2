package engine

import (
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/state"
	"hull/state/plainjson"
)

// record is a container's definition as it is on disk, <root>/containers/<id>/config.json. It is written once,
// at create, and replaced by rename; what changes as the container runs is in the monitor's state.json.
type record struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	ImageID string    `json:"imageId"`
	Layers  []string  `json:"layers,omitempty"`
	Config  Config    `json:"config"`
	Host    Host      `json:"host"`
	// Compat32 says that the image has 32-bit programs: the seccomp profile depends on it.
	Compat32 bool         `json:"compat32,omitempty"`
	Mounts   []MountPoint `json:"mounts,omitempty"`
	Warnings []string     `json:"warnings,omitempty"`
	// Over are directories on top of Layers, lowest first, of a step of a build.
	Over []string `json:"over,omitempty"`
	// Step is the directory of the build that the container belongs to: it is a step of it. While the build lives, it holds a
	// lock on the directory.
	Step string `json:"step,omitempty"`
}

const (
	recordFile = "config.json"
	maxRecord  = 16 << 20 // a definition longer than any request that could have made it is damage
)

func (e *Engine) readRecord(dir string) (*record, error) {
	b, err := state.Read(filepath.Join(dir, recordFile), maxRecord)
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := plainjson.Unmarshal(b, r); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, err)
	}
	if r.ID != filepath.Base(dir) {
		return nil, errdef.As(errdef.ErrCorrupt, errors.New("it is the definition of another container"))
	}
	return r, nil
}

func (r *record) write(dir string) error {
	b, err := plainjson.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, recordFile)
	if r.Host.AutoRemove || r.Step != "" { // nothing of it has to survive a power cut
		return state.Write(path, b)
	}
	return state.WriteDurable(path, b)
}

// container is the engine's view of a record, without its state.
func (r *record) container() *Container {
	c := &Container{
		ID: r.ID, Name: r.Name, Created: r.Created, Image: r.ImageID, Layers: r.Layers,
		Config: r.Config, Host: r.Host, Mounts: r.Mounts, Warnings: r.Warnings, compat32: r.Compat32, step: r.Step, over: r.Over,
	}
	if c.Mounts == nil { // none, or written before there were volumes; checked at create
		c.Mounts, _ = parseMounts(&c.Host)
	}
	return c
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
