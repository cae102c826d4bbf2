package api

import (
	"strings"
	"testing"
)

// TestGCStream: with progress the last message has what is the answer otherwise.
func TestGCStream(t *testing.T) {
	c := client(t)
	_, plain := do(t, c, "POST", "/hull/v1/gc?dry-run=1", "")
	_, stream := do(t, c, "POST", "/hull/v1/gc?dry-run=1&progress=1", "")
	if want := `{"aux":` + strings.TrimSuffix(plain, "\n") + "}\n"; plain == "" || want != stream {
		t.Errorf("want %q, got %q", want, stream)
	}
	if r, body := do(t, c, "POST", "/hull/v1/gc?progress=1&keep=much", ""); r.StatusCode != 400 {
		t.Errorf("%s: %s", r.Status, body)
	}
}
