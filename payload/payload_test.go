package payload

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"hull/errdef"
)

func carrying(program, digest string) fstest.MapFS {
	return fstest.MapFS{
		runtimeFile: {Data: []byte(program)},
		digestFile:  {Data: []byte(digest + "  hull-runtime\n")},
	}
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func TestRuntime(t *testing.T) {
	fsys := carrying("program", sum("program"))
	if got, err := digest(fsys); got != sum("program") || err != nil {
		t.Errorf("digest: %q, %v", got, err)
	}
	if got, err := program(fsys); string(got) != "program" || err != nil {
		t.Errorf("program: %q, %v", got, err)
	}
}

func TestRuntimeStaleDigest(t *testing.T) {
	if _, err := program(carrying("program", sum("an older program"))); !errors.Is(err, errdef.ErrCorrupt) {
		t.Errorf("want ErrCorrupt, got %v", err)
	}
	if _, err := digest(carrying("program", "../../etc")); !errors.Is(err, errdef.ErrCorrupt) {
		t.Errorf("want ErrCorrupt, got %v", err)
	}
}

func TestMissing(t *testing.T) {
	empty := fstest.MapFS{}
	_, err1 := digest(empty)
	_, err2 := program(empty)
	_, err3 := image(empty)
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, errdef.ErrUnavailable) || !strings.Contains(err.Error(), "make build") {
			t.Errorf("want an unavailable that says make build, got %v", err)
		}
	}
}

// What this very test binary carries, if anything, is what was built.
func TestCarried(t *testing.T) {
	_, err := Runtime()
	if errors.Is(err, errdef.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Error(err)
	}
}
