package api

import (
	"net/http"

	"github.com/moby/moby/api/types/system"
)

// ping says that somebody is there and which API it speaks, in the headers every answer has.
func (s *server) ping(q *request) error {
	h := q.w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Swarm", "inactive")
	if q.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, _ = q.w.Write([]byte("OK"))
	return nil
}

func (s *server) version(q *request) error {
	v := s.engine.Version()
	return q.answer(http.StatusOK, system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Hull"},
		Version:       v.Version,
		APIVersion:    Version,
		MinAPIVersion: MinVersion,
		Os:            v.OS,
		Arch:          v.Arch,
		GitCommit:     v.Commit,
		GoVersion:     v.Go,
		KernelVersion: v.Kernel,
		Components: []system.ComponentVersion{{
			Name:    "Engine",
			Version: v.Version,
			Details: map[string]string{
				"ApiVersion":    Version,
				"MinAPIVersion": MinVersion,
				"Arch":          v.Arch,
				"GitCommit":     v.Commit,
				"GoVersion":     v.Go,
				"KernelVersion": v.Kernel,
				"Os":            v.OS,
			},
		}},
	})
}
