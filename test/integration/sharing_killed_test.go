package integration

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hull/test/rig"
)

// TestSharingKilled kills a registry in the middle of a push, after each of its requests: the tag names what it did or what
// was pushed, all that is listed runs, the store is whole, and the next push goes through.
func TestSharingKilled(t *testing.T) {
	skopeo := rig.Tool(t, "skopeo")
	h := rig.Engine(t)
	archive := rig.Layered(t).OCI(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	push := func() *exec.Cmd {
		return exec.CommandContext(t.Context(), skopeo, "--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false",
			"oci-archive:"+archive, "docker://"+addr+"/app:1")
	}
	var images []string // by which what is listed is compared
	for after, ended := 1, false; !ended; after++ {
		log := filepath.Join(t.TempDir(), "log")
		out, err := os.Create(log)
		if err != nil {
			t.Fatal(err)
		}
		server := h.Cmd(t, "registry", "serve", "--addr", addr, "--writable", "--verbose")
		server.Stderr = out
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		rig.Eventually(t, "the registry answers", func() bool {
			resp, err := http.Get("http://" + addr + "/v2/")
			if err == nil {
				resp.Body.Close()
			}
			return err == nil
		})
		client := push()
		done := make(chan error, 1)
		go func() { done <- client.Run() }()
		for running := true; running; {
			select {
			case err := <-done:
				if ended, running = true, false; err != nil {
					t.Errorf("undisturbed: %v", err)
				}
			case <-time.After(time.Millisecond):
				data, _ := os.ReadFile(log)
				running = bytes.Count(data, []byte("path=/v2/app/")) < after
			}
		}
		server.Process.Kill()
		server.Wait()
		out.Close()
		if !ended {
			client.Process.Kill() // it would try again for long
			<-done
		}
		images = strings.Fields(h.Must(t, "images", "-aq", "--no-trunc"))
		for _, id := range images {
			if got := h.Must(t, "run", "--rm", "--network", "none", id); !strings.Contains(got, "hello from app") {
				t.Errorf("killed after %d requests: %s runs as %q", after, id, got)
			}
		}
		if got := h.Must(t, "system", "check"); !strings.Contains(got, "The store is whole.") {
			t.Errorf("killed after %d requests: %s", after, got)
		}
		if !ended && len(images) > 0 { // it was there in time: once more from nothing
			h.Must(t, "rmi", "-f", images[0])
		}
		if after > 100 {
			t.Fatal("the push does not end")
		}
	}
	if len(images) != 1 {
		t.Errorf("after a push that went through: %v", images)
	}
	h.Mark(t)
}
