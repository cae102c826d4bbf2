package engine

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"hull/monitor"
)

// prestartGrace is how long what was prepared ahead of a start is kept.
const prestartGrace = 3 * time.Second

// heads are head starts of containers whose client said that it would start them right after their creation: a monitor
// needs some milliseconds to begin, which pass beside the creation. It is no state: whoever finds nothing here does the
// work when it is needed, and a monitor whose only client goes away ends and leaves nothing.
type heads struct {
	mu sync.Mutex // protects of and the bundle of each
	of map[string]*head
}

type head struct {
	claimed chan struct{} // closed when the run directory is there, or will not be
	spawned chan struct{} // closed when conn is set
	ready   chan struct{} // closed when bundle is set: nothing more is going to be prepared
	conn    *monitor.Conn // nil when there is no monitor, or somebody has taken the connection
	bundle  *bundle
}

// bundle is a configuration written ahead for the first start of c as it was then.
type bundle struct {
	c     *Container
	grant *grant
}

// prestart spawns the monitor of the container id in the background. writeAhead or abandon has to follow.
func (e *Engine) prestart(id string) {
	h := &head{claimed: make(chan struct{}), spawned: make(chan struct{}), ready: make(chan struct{})}
	e.heads.mu.Lock()
	defer e.heads.mu.Unlock()
	if e.heads.of == nil {
		e.heads.of = map[string]*head{}
	}
	e.heads.of[id] = h
	go func() {
		var once sync.Once
		claimed := func() { once.Do(func() { close(h.claimed) }) }
		defer close(h.spawned)
		defer claimed()
		time.AfterFunc(prestartGrace, func() { e.dropHead(id) }) // also when there is no monitor: a server lives long
		conn, err := e.spawn(context.Background(), id, claimed)
		if err != nil {
			return // whoever needs the monitor tries again, and reports
		}
		h.conn = conn
		e.opt.Trace.Step("spawn monitor")
	}()
}

// head of the container id, all prepared; nil when there is none.
func (e *Engine) head(id string) *head {
	h := e.headNow(id)
	if h != nil {
		<-h.ready // bounded by the deadline of spawn
	}
	return h
}

func (e *Engine) headNow(id string) *head {
	e.heads.mu.Lock()
	defer e.heads.mu.Unlock()
	return e.heads.of[id]
}

// takeConn hands the first connection over, once.
func (e *Engine) takeConn(id string) *monitor.Conn {
	h := e.head(id)
	if h == nil {
		return nil
	}
	e.heads.mu.Lock()
	defer e.heads.mu.Unlock()
	conn := h.conn
	h.conn = nil
	return conn
}

// writeAhead writes the bundle of the container just created, while its monitor begins, and has the monitor make what it
// can of it. A failure shows at the start.
func (e *Engine) writeAhead(ctx context.Context, id string) {
	h := e.headNow(id)
	if h == nil {
		return
	}
	defer close(h.ready)
	<-h.claimed
	b := e.bundleAhead(ctx, id)
	<-h.spawned
	e.heads.mu.Lock()
	defer e.heads.mu.Unlock()
	if h.bundle = b; b != nil && h.conn != nil {
		h.conn.Prepare(e.opt.Trace != nil)
	}
}

func (e *Engine) bundleAhead(ctx context.Context, id string) *bundle {
	c, err := e.use(ctx, id)
	if err != nil {
		return nil
	}
	l, err := e.lock(ctx, id)
	if err != nil {
		return nil
	}
	defer l.Unlock()
	if e.loadState(c); c.State.Status != StatusCreated {
		return nil
	}
	g, err := e.prepare(ctx, c)
	if err != nil {
		return nil
	}
	return &bundle{c, g}
}

// abandon ends the head start of a container that could not be created.
func (e *Engine) abandon(id string) {
	h := e.headNow(id)
	<-h.spawned
	close(h.ready)
	e.dropHead(id)
}

// takeBundle hands over what writeAhead wrote, unless c has changed or was started since. c is locked.
func (e *Engine) takeBundle(c *Container) *bundle {
	h := e.headNow(c.ID) // ready, for its connection was taken
	e.heads.mu.Lock()
	defer e.heads.mu.Unlock()
	if h == nil || h.bundle == nil || !reflect.DeepEqual(h.bundle.c, c) {
		return nil
	}
	b := h.bundle
	h.bundle = nil
	return b
}

// dropHead gives back what nobody has taken, and waits until its monitor has left. The container is not locked by the
// caller.
func (e *Engine) dropHead(id string) {
	if conn := e.takeConn(id); conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), prestartGrace)
		defer cancel()
		_ = conn.Finish(ctx) // one that hangs has its lock, and is found by it
		conn.Close()
	}
	e.heads.mu.Lock()
	h := e.heads.of[id]
	delete(e.heads.of, id)
	e.heads.mu.Unlock()
	if h != nil && h.bundle != nil {
		e.giveBack(id, h.bundle.grant)
	}
}

// spawn opens a connection to the monitor of id, which is started when there is none. claimed is called as soon as the
// run directory is there.
func (e *Engine) spawn(ctx context.Context, id string, claimed func()) (*monitor.Conn, error) {
	binary, err := e.runtime()
	if err != nil {
		return nil, err
	}
	if err := e.runReady(); err != nil {
		return nil, err
	}
	return monitor.Open(ctx, monitor.Program{Path: binary, Cgroup: e.Instance() + ".monitors", Claimed: claimed}, e.runDir(id))
}

// monitor returns a connection to the monitor of c's next start, or of the one that runs; if there is none it is made.
func (e *Engine) monitor(ctx context.Context, c *Container) (*monitor.Conn, error) {
	if conn := e.takeConn(c.ID); conn != nil {
		return conn, nil
	}
	for {
		conn, err := e.spawn(ctx, c.ID, nil)
		if !errors.Is(err, monitor.ErrDead) {
			return conn, err
		}
		if _, err := e.repair(ctx, c.ID); err != nil {
			return nil, err
		}
	}
}
