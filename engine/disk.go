package engine

import (
	"context"
	"path/filepath"
	"strings"

	"hull/state"
)

// Disk is what every byte below the root directory is for, in blocks of the file system: what du -x says, taken apart.
type Disk struct {
	Root  string
	Total int64
	Parts []DiskPart // those that are there
	// Dropped is how many bytes of blobs were dropped, since a registry holds them, and Droppable how many could be.
	Dropped, Droppable int64
	// Closed is how many directories could not be looked into: they are not ours, and what is in them is not counted.
	Closed int64
}

// DiskPart is one kind of thing.
type DiskPart struct {
	Kind  string
	Bytes int64
	Files int64 // and directories
}

// The kinds of what is below the root, in the order they are shown.
const (
	diskLayers     = "Layers"
	diskBlobs      = "Blobs"
	diskPartial    = "Partial downloads"
	diskNames      = "Image records"
	diskWritten    = "Container files"
	diskLogs       = "Container logs"
	diskContainers = "Container records"
	diskVolumes    = "Volumes"
	diskNetworks   = "Networks"
	diskEvents     = "Events"
	diskUndo       = "To be undone"
	diskTrash      = "Being removed"
	diskQuarantine = "Quarantine"
	diskPrograms   = "Hull itself"
	diskOther      = "Other"
)

var diskKinds = [...]string{
	diskLayers, diskBlobs, diskPartial, diskNames, diskWritten, diskLogs, diskContainers, diskVolumes, diskNetworks,
	diskEvents, diskUndo, diskTrash, diskQuarantine, diskPrograms, diskOther,
}

// diskKind says what the name in the root directory is for.
func diskKind(name string) string {
	switch name {
	case "layers":
		return diskLayers
	case "blobs", "oci-layout", "index.json":
		return diskBlobs
	case "ingest":
		return diskPartial
	case "images", "refs", "refs.log", "pins", "origins":
		return diskNames
	case "containers", "names":
		return diskContainers
	case "volumes":
		return diskVolumes
	case "networks":
		return diskNetworks
	case "events":
		return diskEvents
	case "undo":
		return diskUndo
	case "trash":
		return diskTrash
	case "quarantine":
		return diskQuarantine
	case "bin", "seccomp", "version":
		return diskPrograms
	}
	if strings.HasPrefix(name, "skeleton-") {
		return diskPrograms
	}
	return diskOther
}

// Disk measures the store. Slow: it looks at every file.
func (e *Engine) Disk(ctx context.Context) (*Disk, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	m := diskMeter{ctx: ctx, parts: map[string]DiskPart{}}
	names, err := readNames(e.root)
	if err != nil {
		return nil, e.storeError(err)
	}
	m.add(diskOther, e.root, func(string) bool { return true }) // the directory itself
	for _, name := range names {
		path := filepath.Join(e.root, name)
		if name == "containers" {
			m.containers(path)
			continue
		}
		m.add(diskKind(name), path, nil)
	}
	if m.err != nil {
		return nil, e.storeError(m.err)
	}
	d := &Disk{Root: e.root, Closed: m.use.Closed}
	if blobs, err := e.images().Dropping(e.layersInUse); err == nil { // a damaged image is no reason to measure nothing
		d.Dropped, d.Droppable = blobs.Dropped, blobs.Droppable
	}
	for _, kind := range diskKinds {
		p := m.parts[kind]
		if p.Kind = kind; p.Files > 0 {
			d.Parts = append(d.Parts, p)
			d.Total += p.Bytes
		}
	}
	return d, nil
}

// diskMeter adds up by kind, until something is wrong.
type diskMeter struct {
	ctx   context.Context
	use   state.DiskUse
	parts map[string]DiskPart
	err   error
}

func (m *diskMeter) add(kind, path string, leave func(string) bool) {
	if m.err != nil {
		return
	}
	before := m.use.Files
	n, err := m.use.Add(m.ctx, path, leave)
	p := m.parts[kind]
	m.parts[kind] = DiskPart{kind, p.Bytes + n, p.Files + m.use.Files - before}
	m.err = err
}

// containers takes apart what each has written, its log and what Hull keeps of it.
func (m *diskMeter) containers(dir string) {
	names, err := readNames(dir)
	if err != nil {
		m.err = err
		return
	}
	m.add(diskContainers, dir, func(string) bool { return true })
	for _, name := range names {
		one := filepath.Join(dir, name)
		m.add(diskWritten, filepath.Join(one, "rw"), nil)
		m.add(diskLogs, filepath.Join(one, "log"), nil)
		m.add(diskContainers, one, func(name string) bool { return name == "rw" || name == "log" })
	}
}
