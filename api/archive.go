package api

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"hull/engine"

	"github.com/moby/moby/api/types/container"
)

// pathStatHeader carries the description of a file, JSON in base64.
const pathStatHeader = "X-Docker-Container-Path-Stat"

// statPath is HEAD /containers/{name}/archive.
func (s *server) statPath(q *request) error {
	st, err := s.engine.Stat(q.Context(), q.name, q.query("path"))
	if err != nil {
		return err
	}
	if err := q.describe(st); err != nil {
		return err
	}
	return q.empty(http.StatusOK)
}

// getArchive is GET /containers/{name}/archive.
func (s *server) getArchive(q *request) error {
	st, tar, err := s.engine.CopyFrom(q.Context(), q.name, q.query("path"))
	if err != nil {
		return err
	}
	defer tar.Close()
	if err := q.describe(st); err != nil {
		return err
	}
	return q.tar(tar)
}

// putArchive is PUT /containers/{name}/archive. Owners are those of the tar, whatever copyUIDGID says: it is our client
// that makes them root's, or keeps them.
func (s *server) putArchive(q *request) error {
	o := engine.CopyOptions{SameKind: q.flag("noOverwriteDirNonDir")}
	if err := s.engine.CopyTo(q.Context(), q.name, q.query("path"), q.Body, o); err != nil {
		return err
	}
	return q.empty(http.StatusOK)
}

// exportContainer is GET /containers/{name}/export.
func (s *server) exportContainer(q *request) error {
	tar, err := s.engine.Export(q.Context(), q.name)
	if err != nil {
		return err
	}
	defer tar.Close()
	return q.tar(tar)
}

// containerChanges is GET /containers/{name}/changes.
func (s *server) containerChanges(q *request) error {
	list, err := s.engine.Diff(q.Context(), q.name)
	if err != nil {
		return err
	}
	out := make([]container.FilesystemChange, 0, len(list))
	for _, c := range list {
		out = append(out, container.FilesystemChange{Kind: container.ChangeType(c.Kind), Path: c.Path})
	}
	return q.answer(http.StatusOK, out)
}

func (q *request) describe(st *engine.FileStat) error {
	b, err := json.Marshal(container.PathStat{Name: st.Name, Size: st.Size, Mode: st.Mode, Mtime: st.ModTime, LinkTarget: st.Link})
	if err != nil {
		return err
	}
	q.w.Header().Set(pathStatHeader, base64.StdEncoding.EncodeToString(b))
	return nil
}

// tar sends an archive. Once it has begun, a failure can only be told by breaking the connection off.
func (q *request) tar(r io.Reader) error {
	return q.tarFrom(func(w io.Writer) (int64, error) { return io.Copy(w, r) })
}

// tarFrom is tar for what writes itself.
func (q *request) tarFrom(write func(io.Writer) (int64, error)) error {
	q.w.Header().Set("Content-Type", "application/x-tar")
	q.w.WriteHeader(http.StatusOK)
	w := &hurried{w: q.w, within: q.stall, deadline: http.NewResponseController(q.w).SetWriteDeadline}
	if _, err := write(w); err != nil {
		panic(http.ErrAbortHandler)
	}
	return w.deadline(time.Time{}) // the connection has more requests
}

// hurried fails when a single write takes too long: behind a tar there is a container that cannot be started, or images
// that cannot be removed, for as long as the client takes.
type hurried struct {
	w        io.Writer
	within   time.Duration
	deadline func(time.Time) error
}

func (h *hurried) Write(p []byte) (int, error) {
	if err := h.deadline(time.Now().Add(h.within)); err != nil {
		return 0, err
	}
	return h.w.Write(p)
}
