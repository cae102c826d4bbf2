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
const prestartGrace = 10 * time.Second

// heads are head starts of containers whose client said that it would start them right after their creation: a monitor
// needs some milliseconds to begin, which pass beside the creation. It is no state: whoever finds nothing here does the
// work when it is needed, and a monitor whose only client goes away ends and leaves nothing.
type heads struct {
	mu sync.Mutex // protects of and the bundle of each
	of map[string]*head
}

type head struct {
	spawned chan struct{} // closed when conn is set
	conn    *monitor.Conn // nil when there is no monitor, or somebody has taken the connection
	bundle  *bundle
}

// bundle is a configuration written ahead for the first start of c as it was then.
type bundle struct {
	c   *Container
	ids *idMap
}

// prestart spawns the monitor of the container id in the background.
func (e *Engine) prestart(id string) {
	h := &head{spawned: make(chan struct{})}
	e.heads.mu.Lock()
	defer e.heads.mu.Unlock()
	if e.heads.of == nil {
		e.heads.of = map[string]*head{}
	}
	e.heads.of[id] = h
	go func() {
		defer close(h.spawned)
		conn, err := e.spawn(context.Background(), id)
		if err != nil {
			return // whoever needs the monitor tries again, and reports
		}
		h.conn = conn
		e.opt.Trace.Step("spawn monitor")
		time.AfterFunc(prestartGrace, func() { e.dropHead(id) })
	}()
}

// head of the container id, its monitor spawned; nil when there is none.
func (e *Engine) head(id string) *head {
	e.heads.mu.Lock()
	h := e.heads.of[id]
	e.heads.mu.Unlock()
	if h != nil {
		<-h.spawned // bounded by the deadline of spawn
	}
	return h
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

// writeAhead writes the bundle of the container just created, while its monitor begins. A failure shows at the start.
func (e *Engine) writeAhead(ctx context.Context, id string) {
	h := e.head(id)
	if h == nil || h.conn == nil {
		return
	}
	c, err := e.use(ctx, id)
	if err != nil {
		return
	}
	l, err := e.lock(ctx, id)
	if err != nil {
		return
	}
	defer l.Unlock()
	if e.loadState(c); c.State.Status != StatusCreated {
		return
	}
	ids, err := e.prepare(c)
	if err != nil {
		return
	}
	e.heads.mu.Lock()
	defer e.heads.mu.Unlock()
	h.bundle = &bundle{c, ids}
}

// takeBundle hands over what writeAhead wrote, unless c has changed or was started since. c is locked.
func (e *Engine) takeBundle(c *Container) *bundle {
	e.heads.mu.Lock()
	defer e.heads.mu.Unlock()
	h := e.heads.of[c.ID]
	if h == nil || h.bundle == nil || !reflect.DeepEqual(h.bundle.c, c) {
		return nil
	}
	b := h.bundle
	h.bundle = nil
	return b
}

// dropHead gives back what nobody has taken.
func (e *Engine) dropHead(id string) {
	if conn := e.takeConn(id); conn != nil {
		conn.Close()
	}
	e.heads.mu.Lock()
	h := e.heads.of[id]
	delete(e.heads.of, id)
	e.heads.mu.Unlock()
	if h != nil && h.bundle != nil && h.bundle.ids != nil {
		_ = e.releaseIDs(id, h.bundle.ids.uids) // else a stale claim, which the next list sweeps
	}
}

// spawn opens a connection to the monitor of id, which is started when there is none.
func (e *Engine) spawn(ctx context.Context, id string) (*monitor.Conn, error) {
	binary, err := e.runtime()
	if err != nil {
		return nil, err
	}
	if err := e.runReady(); err != nil {
		return nil, err
	}
	return monitor.Open(ctx, monitor.Program{Path: binary, Cgroup: e.Instance() + ".monitors"}, e.runDir(id))
}

// monitor returns a connection to the monitor of c's next start, or of the one that runs; if there is none it is made.
func (e *Engine) monitor(ctx context.Context, c *Container) (*monitor.Conn, error) {
	if conn := e.takeConn(c.ID); conn != nil {
		return conn, nil
	}
	for {
		conn, err := e.spawn(ctx, c.ID)
		if !errors.Is(err, monitor.ErrDead) {
			return conn, err
		}
		if _, err := e.repair(ctx, c.ID); err != nil {
			return nil, err
		}
	}
}
