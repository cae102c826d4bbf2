package state

import (
	"bytes"
	"os"
)

// Sparse writes to a new, empty file and leaves holes where there are blocks of zeros. Close it, which does not close the
// file: only then it has its size.
type Sparse struct {
	f   *os.File
	at  int64
	out WriteOut
}

// NewSparse returns a Sparse for f.
func NewSparse(f *os.File) *Sparse { return &Sparse{f: f} }

// sparseBlock is the smallest hole that file systems make.
const sparseBlock = 4096

// Write writes p behind what was written before.
func (s *Sparse) Write(p []byte) (int, error) {
	var zeros [sparseBlock]byte
	begin := 0 // of what is to be written
	for i := 0; i < len(p); {
		n := min(sparseBlock-int((s.at+int64(i))%sparseBlock), len(p)-i)
		if n == sparseBlock && bytes.Equal(p[i:i+n], zeros[:]) {
			if err := s.data(p, begin, i); err != nil {
				return begin, err
			}
			begin = i + n
		}
		i += n
	}
	if err := s.data(p, begin, len(p)); err != nil {
		return begin, err
	}
	s.at += int64(len(p))
	s.out.Written(int(s.f.Fd()), s.at)
	return len(p), nil
}

func (s *Sparse) data(p []byte, begin, end int) error {
	if begin == end {
		return nil
	}
	_, err := s.f.WriteAt(p[begin:end], s.at+int64(begin))
	return err
}

// Close gives the file its size, which it lacks when it ends in a hole.
func (s *Sparse) Close() error { return s.f.Truncate(s.at) }
