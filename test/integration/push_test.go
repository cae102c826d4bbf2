package integration

import (
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hull/registry/registrytest"
	"hull/test/rig"
)

// TestPushInterrupted ends a push in the middle of a blob, by kill -9 and by Ctrl-C. The next one sends that blob, and none
// of those that had arrived.
func TestPushInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			h := rig.Engine(t)
			s := registrytest.New(t, registrytest.Options{})
			name := s.Addr + "/team/app:1"
			load(t, h, name, 100<<10, 200<<10, 4<<20)
			layers, err := strconv.Atoi(h.Must(t, "image", "inspect", "-f", "{{len .RootFS.Layers}}", name))
			if err != nil {
				t.Fatal(err)
			}
			s.On("PUT", "/uploads/", func(next http.Handler) http.Handler {
				slow := registrytest.DripUpload(8<<10, 100*time.Millisecond)(next) // for a minute
				return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					if q.ContentLength > 4<<20 {
						slow.ServeHTTP(w, q)
						return
					}
					next.ServeHTTP(w, q)
				})
			})
			cmd := h.Cmd(t, "push", name)
			var said strings.Builder
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			rig.Eventually(t, "only the largest blob is under way", func() bool {
				begun, arrived := blobs(s)
				return len(begun) == layers+1 && len(arrived) == layers // and the configuration
			})
			_, arrived := blobs(s)
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Fatalf("it went through: %s", said.String())
			}
			if data, _ := s.Manifest("team/app", "1"); data != nil {
				t.Error("half an image has the tag")
			}
			s.Heal()
			s.Forget()
			if r := h.Run(t, "push", name); r.Code != 0 || strings.Count(r.Stdout, "Layer already exists") == 0 {
				t.Fatalf("again: %+v", r)
			}
			again, whole := blobs(s)
			if len(again) != 1 || len(whole) != 1 {
				t.Errorf("blobs are sent again: %v", again)
			}
			for d := range again {
				if arrived[d] {
					t.Errorf("%s had arrived", d)
				}
			}
			if data, _ := s.Manifest("team/app", "1"); data == nil {
				t.Error("the image is not there")
			}
			h.Mark(t)
		})
	}
}

// blobs are the digests of those that clients began to send, and of those that came whole.
func blobs(s *registrytest.Server) (begun, arrived map[string]bool) {
	begun, arrived = map[string]bool{}, map[string]bool{}
	for _, q := range s.Requests() {
		if _, d, ok := strings.Cut(q.Query, "digest="); ok && q.Method == "PUT" {
			begun[d] = true
			arrived[d] = arrived[d] || q.Status == 201
		}
	}
	for d, whole := range arrived {
		if !whole {
			delete(arrived, d)
		}
	}
	return begun, arrived
}
