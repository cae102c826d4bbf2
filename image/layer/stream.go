package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"hull/errdef"
)

// Compression is how a stream is packed.
type Compression int

const (
	Plain Compression = iota
	Gzip
	Zstd
	Bzip2 // of archives; images have no layers of that kind
)

// maxWindow is the memory a compressed stream may make us hold: the zstd format allows 2 GiB and more.
const maxWindow = 128 << 20

// Detect looks at the first bytes of a stream. What can only be a compression unknown to us is an error.
func Detect(head []byte) (Compression, error) {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippable(head):
		return Zstd, nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return Plain, errdef.Unavailable("the archive is compressed with xz, which hull does not read: decompress it first (xz -dc FILE | hull ...)")
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2, nil
	}
	return Plain, nil
}

// isSkippable: zstd streams may begin with frames to skip, 0x184D2A50 to 5F.
func isSkippable(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18
}

// Decompress returns what r holds uncompressed. Close it; that does not close r.
// A stream that grows beyond all reason is cut off with an error.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(8)
	if err != nil && err != io.EOF {
		return nil, Plain, err
	}
	c, err := Detect(head)
	if err != nil {
		return nil, c, err
	}
	in := &ratio{r: br}
	var rc io.ReadCloser
	switch c {
	case Plain:
		return io.NopCloser(br), c, nil
	case Gzip:
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, c, errdef.As(errdef.ErrInvalid, fmt.Errorf("decompress: %w", err))
		}
		rc = z
	case Bzip2:
		rc = io.NopCloser(bzip2.NewReader(in))
	case Zstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(1<<62), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, c, errdef.As(errdef.ErrInvalid, fmt.Errorf("decompress: %w", err))
		}
		rc = z.IOReadCloser()
	}
	return &guarded{ReadCloser: rc, in: in}, c, nil
}

// ErrDense is what a writer of Compress says of content that Decompress would refuse in that compression.
var ErrDense = errors.New("the layer becomes too small in this compression: readers would refuse it")

// Compress returns a writer whose content goes to w as gzip or zstd, the same bytes for the same content. It holds some MiB of
// memory. Gzip takes any content; zstd may end with ErrDense. Close ends the stream; that does not close w.
func Compress(w io.Writer, c Compression) (io.WriteCloser, error) {
	switch c {
	case Gzip:
		return gzip.NewWriter(w), nil
	case Zstd:
		out := &written{w: w}
		z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1))
		return &sparing{WriteCloser: z, out: out}, err
	}
	return nil, errdef.Unavailable("layers of images are not compressed in that way")
}

// written counts what is written.
type written struct {
	w io.Writer
	n int64
}

func (c *written) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// sparing is the other side of guarded, which sees the stream in other portions: hence half of what that allows.
type sparing struct {
	io.WriteCloser
	out *written
	n   int64
}

func (s *sparing) Write(p []byte) (int, error) {
	n, err := s.WriteCloser.Write(p)
	s.n += int64(n)
	if err == nil && s.n > ratioAfter && s.n/(maxRatio/2) > s.out.n {
		err = ErrDense
	}
	return n, err
}

// ratio counts the compressed bytes.
type ratio struct {
	r io.Reader
	n int64
}

func (r *ratio) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	return n, err
}

// guarded ends a stream of which each byte became thousands: no file system is like that, and zstd has no bound
// of its own (that of deflate is 1032).
type guarded struct {
	io.ReadCloser
	in *ratio
	n  int64
}

const (
	maxRatio   = 2000
	ratioAfter = 1 << 30 // a small stream of zeros does no harm
)

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.ReadCloser.Read(p)
	g.n += int64(n)
	if g.n > ratioAfter && g.n/maxRatio > g.in.n {
		return n, errdef.Invalid("the archive decompresses to more than %d times its size: refused", maxRatio)
	}
	if err != nil && err != io.EOF {
		err = errdef.As(errdef.ErrInvalid, fmt.Errorf("decompress: %w", err))
	}
	return n, err
}

// ahead reads its source in a goroutine of its own, some buffers before the consumer, so that decompression and
// hashes on one side and file system calls on the other run at the same time.
type ahead struct {
	full chan filled
	free chan []byte
	done chan struct{}
	wg   sync.WaitGroup
	cur  filled
	off  int
	n    int64 // bytes given out
}

type filled struct {
	buf []byte
	err error // after buf
}

const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

func newAhead(r io.Reader) *ahead {
	a := &ahead{full: make(chan filled, aheadBuffers), free: make(chan []byte, aheadBuffers), done: make(chan struct{})}
	for range aheadBuffers {
		a.free <- make([]byte, aheadSize)
	}
	a.wg.Go(func() { a.fill(r) })
	return a
}

func (a *ahead) fill(r io.Reader) {
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.done:
			return
		}
		buf = buf[:aheadSize]
		n, err := 0, error(nil)
		for n < len(buf) && err == nil {
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		a.full <- filled{buf[:n], err} // has room for all buffers
		if err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for a.off == len(a.cur.buf) {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			a.free <- a.cur.buf
		}
		a.cur, a.off = <-a.full, 0
	}
	n := copy(p, a.cur.buf[a.off:])
	a.off += n
	a.n += int64(n)
	return n, nil
}

// Close ends the reading; it waits for a read that is under way.
func (a *ahead) Close() {
	close(a.done)
	a.wg.Wait()
}
