package engine

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Processes that execute replaced files share no memory: a hundred first starts at once extract one program.
func TestExtractOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bin", "program")
	data := bytes.Repeat([]byte("program"), 1<<16)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", ".tmp-program"), []byte("of one that was killed, longer or shorter"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	seen := make([]os.FileInfo, 20)
	for i := range seen {
		wg.Go(func() {
			if err := extract(path, data); err != nil {
				t.Error(err)
			}
			seen[i], _ = os.Stat(path)
		})
	}
	wg.Wait()
	for _, s := range seen {
		if s == nil || !os.SameFile(s, seen[0]) {
			t.Fatal("the program was replaced while others executed it")
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) || seen[0].Mode() != 0o755 {
		t.Fatalf("%d bytes, mode %v, %v", len(got), seen[0].Mode(), err)
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 1 {
		t.Fatalf("left %v, %v", names, err)
	}
}
