package engine

import (
	"io"
	"sync"
	"testing"

	"hull/runtime/files"
)

// slowBody is an input whose second read waits for a signal, as that of a client does that sends nothing more. It wants
// not to be closed while it is read.
type slowBody struct {
	t     *testing.T
	begun chan struct{} // closed when the read begins that waits
	more  chan struct{} // closed by the test
	over  chan struct{} // closed by Close

	mu      sync.Mutex // protects the following
	reads   int
	reading bool
}

func (b *slowBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.reads++
	first := b.reads == 1
	b.reading = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reading = false
	}()
	if first {
		return copy(p, make([]byte, 512)), nil // half the end of a tar
	}
	close(b.begun)
	<-b.more
	return 0, io.EOF
}

func (b *slowBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reading {
		b.t.Error("closed while it is read")
	}
	close(b.over)
	return nil
}

// TestFeederCloses: what is read for a worker is closed after the last read, though the worker has ended before.
func TestFeederCloses(t *testing.T) {
	e := real(t)
	r := with(t, e, nil, "true")
	c, err := e.use(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	b := &slowBody{t: t, begun: make(chan struct{}), more: make(chan struct{}), over: make(chan struct{})}
	// A stat replies without a look at its input.
	w, err := e.work(t.Context(), c, &files.Job{Op: files.OpStat, Path: "/"}, b)
	if err != nil {
		t.Fatal(err)
	}
	<-b.begun
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.over:
		t.Error("closed although a read is under way")
	default:
	}
	close(b.more)
	<-b.over
	// One that comes to nothing closes it too.
	b = &slowBody{t: t, over: make(chan struct{})}
	if _, err := e.workOn(t.Context(), "nosuch", "/", &files.Job{Op: files.OpStat}, b); err == nil {
		t.Error("a container that does not exist is worked on")
	}
	<-b.over
}
