package state

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestSparse(t *testing.T) {
	// Data of a few bytes and of many, at places that are no multiples of anything, and a hole at the end.
	want := make([]byte, 10<<20)
	copy(want[5000:], "one")
	copy(want[1<<20-1:], bytes.Repeat([]byte("two"), 10000))
	for _, chunk := range []int{1000, 4096, 100001, len(want)} {
		name := filepath.Join(t.TempDir(), "file")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		s := NewSparse(f)
		for rest := want; len(rest) > 0; {
			n, err := s.Write(rest[:min(chunk, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("in pieces of %d: not what was written: %d bytes, %v", chunk, len(got), err)
		}
		fi, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if used := fi.Sys().(*syscall.Stat_t).Blocks * 512; chunk >= 2*sparseBlock && used > 1<<20 {
			t.Errorf("in pieces of %d: %d bytes of the disk are used", chunk, used)
		}
		f.Close()
	}
}
