package image

import (
	"context"
	"io"
	"sync"
	"time"
)

// gauge tells how many bytes of a known number have been read, a few times a second. It is safe for concurrent use.
type gauge struct {
	tell   func(Progress)
	action string

	// mu protects the following.
	mu     sync.Mutex
	object string
	base   int64 // bytes of the objects before this one
	size   int64 // of this one
	read   int64 // of this one
	total  int64 // of all
	last   time.Time
}

// gaugeEvery is how often a gauge tells.
const gaugeEvery = 100 * time.Millisecond

// next begins the next object, which has size bytes.
func (g *gauge) next(object string, size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.base += g.size
	g.object, g.size, g.read = object, size, 0
	g.say(false)
}

// end says that all has been read.
func (g *gauge) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.base, g.size, g.read = g.total, 0, 0
	g.say(true)
}

// say is called with mu held.
func (g *gauge) say(now bool) {
	if g.object == "" || !now && time.Since(g.last) < gaugeEvery {
		return
	}
	g.last = time.Now()
	// What is counted may have grown or shrunk since it was added up.
	g.tell(Progress{ID: g.object, Action: g.action, Current: min(g.base+min(g.read, g.size), g.total), Total: g.total})
}

// reader counts what is read from r, and ends when ctx does.
func (g *gauge) reader(ctx context.Context, r io.Reader) io.Reader {
	return &gauged{ctx, r, g}
}

type gauged struct {
	ctx context.Context
	r   io.Reader
	g   *gauge
}

func (r *gauged) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.r.Read(p)
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	r.g.read += int64(n)
	r.g.say(false)
	return n, err
}
