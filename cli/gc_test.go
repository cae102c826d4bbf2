package cli

import (
	"io"
	"net/http"
	"testing"

	"hull/test/rig"
)

// On a terminal gc says how far a comparison is; elsewhere, and in a dry run, it does not ask.
func TestGCProgress(t *testing.T) {
	f := newFake(t)
	f.on("POST /hull/v1/gc", func(w http.ResponseWriter, r *http.Request) {
		const end = `{"Images":[],"Dropped":[],"Stay":[],"SpaceReclaimed":3000000}`
		if r.URL.Query().Get("progress") == "" {
			io.WriteString(w, end)
			return
		}
		io.WriteString(w, `{"id":"blob sha256:abc","status":"Comparing layers","progressDetail":{"current":1000000,"total":2000000}}`+"\n")
		io.WriteString(w, `{"aux":`+end+"}\n")
	})
	p := rig.Pty(t, f.command("gc", "--drop-blobs"))
	p.Expect("blob sha256:abc: Comparing layers 1MB of 2MB")
	p.Expect("Total reclaimed space: 3MB")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	p = rig.Pty(t, f.command("gc", "--drop-blobs", "--dry-run"))
	p.Expect("Total reclaimable space: 3MB")
	p.Wait()
	if out, err := f.command("gc", "--drop-blobs").CombinedOutput(); err != nil || string(out) != "Total reclaimed space: 3MB\n" {
		t.Errorf("%q, %v", out, err)
	}
	f.on("POST /hull/v1/gc", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"error":"no space left","errorDetail":{"message":"no space left"}}`+"\n")
	})
	p = rig.Pty(t, f.command("gc"))
	p.Expect("no space left")
	if code := p.Wait(); code != 1 {
		t.Errorf("exit status of a failure in the middle: %d", code)
	}
}
