package registrytest

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"hull/ref"
)

// session is an upload that has begun.
type session struct {
	repo string
	data []byte
}

func (s *Server) begin(w http.ResponseWriter, q *http.Request, name string) {
	if q.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if d := ref.Digest(q.FormValue("mount")); d != "" && !s.opt.NoMount {
		if data := s.Blob(q.FormValue("from"), d); data != nil {
			s.AddBlob(name, data)
			w.Header().Set("Docker-Content-Digest", string(d))
			w.Header().Set("Location", "/v2/"+name+"/blobs/"+string(d))
			w.WriteHeader(http.StatusCreated)
			return
		}
	}
	s.mu.Lock()
	s.serial++
	id := strconv.Itoa(s.serial)
	s.uploads[id] = &session{repo: name}
	s.mu.Unlock()
	s.where(w, name, id, 0)
	w.WriteHeader(http.StatusAccepted)
}

// where tells how far an upload is.
func (s *Server) where(w http.ResponseWriter, name, id string, n int) {
	w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/uploads/%s?state=%d", name, id, n))
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(n-1, 0)))
}

func (s *Server) upload(w http.ResponseWriter, q *http.Request, name, id string) {
	s.mu.Lock()
	u := s.uploads[id]
	s.mu.Unlock()
	if u == nil || u.repo != name {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		return
	}
	switch q.Method {
	case http.MethodGet:
		s.where(w, name, id, s.size(u))
		w.WriteHeader(http.StatusNoContent)
	case http.MethodDelete:
		s.end(id)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch:
		if s.receive(w, q, id, u) {
			s.where(w, name, id, s.size(u))
			w.WriteHeader(http.StatusAccepted)
		}
	case http.MethodPut:
		if s.receive(w, q, id, u) {
			s.finish(w, q, name, id, u)
		}
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (s *Server) size(u *session) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(u.data)
}

func (s *Server) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, id)
}

// receive takes what a request brings. What came before it broke is kept, unless this registry does not.
func (s *Server) receive(w http.ResponseWriter, q *http.Request, id string, u *session) bool {
	if r := q.Header.Get("Content-Range"); r != "" {
		var from, to int
		if n, err := fmt.Sscanf(r, "%d-%d", &from, &to); n != 2 || err != nil || from != s.size(u) {
			s.where(w, u.repo, id, s.size(u))
			fail(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "blob upload invalid")
			return false
		}
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := q.Body.Read(buf)
		s.mu.Lock()
		u.data = append(u.data, buf[:n]...)
		s.mu.Unlock()
		if err == io.EOF {
			return true
		}
		if err != nil {
			if s.opt.NoResume {
				s.end(id)
			}
			return false
		}
	}
}

func (s *Server) finish(w http.ResponseWriter, q *http.Request, name, id string, u *session) {
	s.end(id)
	d := ref.Digest(q.FormValue("digest"))
	if d != Digest(u.data) {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	s.AddBlob(name, u.data)
	w.Header().Set("Docker-Content-Digest", string(d))
	w.Header().Set("Location", "/v2/"+name+"/blobs/"+string(d))
	w.WriteHeader(http.StatusCreated)
}
