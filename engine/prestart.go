package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"hull/monitor"
)

// prestartGrace is how long a monitor spawned ahead of its use is kept.
const prestartGrace = 10 * time.Second

// prestarts are the connections to monitors that were spawned while their containers were still being created. It is
// no state, only a head start: whoever finds nothing here opens a connection of its own.
type prestarts struct {
	mu    sync.Mutex // protects conns
	conns map[string]chan *monitor.Conn
}

// prestart spawns the monitor of the container id in the background, because the client says that it is about to start
// it: a monitor needs two milliseconds to begin, as much as the engine for the rest of the creation. A monitor whose
// only client goes away ends and leaves nothing.
func (e *Engine) prestart(id string) {
	ch := make(chan *monitor.Conn, 1)
	e.pre.mu.Lock()
	defer e.pre.mu.Unlock()
	if e.pre.conns == nil {
		e.pre.conns = map[string]chan *monitor.Conn{}
	}
	e.pre.conns[id] = ch
	go func() {
		conn, err := e.spawn(context.Background(), id)
		if err != nil {
			conn = nil // whoever needs the monitor tries again, and reports
		}
		ch <- conn
		e.opt.Trace.Step("spawned monitor")
		time.AfterFunc(prestartGrace, func() { e.dropPrestart(id) })
	}()
}

// prestarted hands over the connection, once; nil when there is none.
func (e *Engine) prestarted(id string) *monitor.Conn {
	e.pre.mu.Lock()
	ch := e.pre.conns[id]
	delete(e.pre.conns, id)
	e.pre.mu.Unlock()
	if ch == nil {
		return nil
	}
	return <-ch // bounded by the deadline of spawn
}

func (e *Engine) dropPrestart(id string) {
	if conn := e.prestarted(id); conn != nil {
		conn.Close()
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
	if conn := e.prestarted(c.ID); conn != nil {
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
