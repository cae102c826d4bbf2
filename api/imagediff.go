package api

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"maps"
	"net/http"
	"slices"

	"hull/image"
	"hull/image/tree"
)

// diffLine is a line of the answer of GET /hull/v1/images/{name...}/diff?to=IMAGE: the head comes first, then a line for
// each path, and the end or an error.
type diffLine struct {
	Head  *diffHead      `json:",omitempty"`
	File  *fileChange    `json:",omitempty"`
	End   *diffEnd       `json:",omitempty"`
	Error *messageDetail `json:",omitempty"`
}

type diffHead struct {
	From, To imageSize
	Config   []settingChange
}

type imageSize struct {
	ID   string
	Size int64
}

type settingChange struct {
	Field string
	Key   string `json:",omitempty"`
	Kind  string
	Old   string
	New   string
}

type fileChange struct {
	Path string
	Kind string
	What []string   `json:",omitempty"`
	Old  *fileEntry `json:",omitempty"`
	New  *fileEntry `json:",omitempty"`
}

// fileEntry has -1 for an owner that is not known.
type fileEntry struct {
	Type   string // file, directory, symlink, chardevice, device, fifo or socket
	Mode   uint32
	UID    int
	GID    int
	Size   int64
	Target string   `json:",omitempty"`
	Device uint64   `json:",omitempty"`
	Xattrs []string `json:",omitempty"`
}

type diffEnd struct {
	Added, Changed, Deleted int
	Bytes                   int64
	Unreadable              int
	Findings                []image.Finding
}

func (s *server) diffImages(q *request) error {
	c, err := s.engine.CompareImages(q.Context(), q.name, q.query("to"))
	if err != nil {
		return err
	}
	defer c.Close()
	if path := q.query("content"); path != "" {
		text, err := c.Content(path)
		if err != nil {
			return err
		}
		return q.answer(http.StatusOK, struct{ Diff string }{text})
	}
	q.w.Header().Set("Content-Type", "application/x-ndjson")
	w := bufio.NewWriter(q.w) // a million changes are a million lines
	enc := json.NewEncoder(w)
	_ = enc.Encode(diffLine{Head: &diffHead{imageSize{c.Old.ID, c.Old.Size}, imageSize{c.New.ID, c.New.Size}, wireSettings(c.Config)}})
	sum, err := c.Files(q.Context(), func(ch *tree.Change) error {
		return enc.Encode(diffLine{File: &fileChange{ch.Path, string(ch.Kind), ch.What, wireEntry(ch.Old), wireEntry(ch.New)}})
	})
	if err != nil {
		_ = enc.Encode(diffLine{Error: &messageDetail{Message: err.Error()}})
	} else {
		end := wireSummary(sum)
		_ = enc.Encode(diffLine{End: &end})
	}
	_ = w.Flush()
	return nil
}

func wireSettings(list []image.Setting) []settingChange {
	out := make([]settingChange, 0, len(list))
	for _, s := range list {
		out = append(out, settingChange{s.Field, s.Key, string(s.Kind), s.Old, s.New})
	}
	return out
}

func wireEntry(e *tree.Entry) *fileEntry {
	if e == nil {
		return nil
	}
	out := &fileEntry{Type: typeName(e.Type), Mode: e.Mode, UID: e.UID, GID: e.GID, Size: e.Size, Target: e.Target, Device: e.Device}
	out.Xattrs = slices.Sorted(maps.Keys(e.Xattrs))
	return out
}

func typeName(t fs.FileMode) string {
	switch t {
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symlink"
	case fs.ModeDevice | fs.ModeCharDevice:
		return "chardevice"
	case fs.ModeDevice:
		return "device"
	case fs.ModeNamedPipe:
		return "fifo"
	case fs.ModeSocket:
		return "socket"
	}
	return "file"
}
