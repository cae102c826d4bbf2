package state

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestWriteOut: a long file is as it was written, and told of in steps.
func TestWriteOut(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := NewSparse(f)
	part := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	for i := range 2*(writeOutStep/len(part)) + 1 {
		if i == 3 {
			clear(part)
		}
		if i == 4 {
			copy(part, "begin")
		}
		if _, err := s.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.out.from != 2*writeOutStep {
		t.Errorf("want two steps of %d, got %d", writeOutStep, s.out.from)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil || len(data) != 2*writeOutStep+len(part) {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	for i := 0; i < len(data); i += len(part) {
		want := []byte("0123456789")
		if i >= 4*len(part) {
			want = []byte("begin\x00")
		} else if i == 3*len(part) {
			want = make([]byte, 10)
		}
		if !bytes.HasPrefix(data[i:], want) {
			t.Errorf("at %d: %q", i, data[i:i+10])
		}
	}
	closed := WriteOut{}
	closed.Written(-1, 2*writeOutStep) // no file: nothing to tell, nothing to say
}
