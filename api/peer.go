package api

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"hull/engine"
	"hull/errdef"
	"hull/ref"
)

// pullFromPeer is POST /hull/v1/peer/pull, and pushToPeer .../push: the connection becomes the way to another engine, which
// the client has reached and the engine here has not.
//
//	client ── what the peer says ──────────────────► engine
//	       ◄── frames: 1 is for the peer, 2 messages ──  one newline is the end of the messages
//
// So no client can make the engine start a program or reach a host, and the keys and the person that ssh may ask for are
// where the command was typed.
func (s *server) pullFromPeer(q *request) error {
	remote, err := q.remote(nil, q.query("name"))
	if err != nil {
		return err
	}
	return q.peer(&remote, func(m *messages) error {
		return s.pull(q, m, remote, q.query("name"), q.query("tag"))
	})
}

func (s *server) pushToPeer(q *request) error {
	name := q.query("name")
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	remote, err := q.remote(nil, name)
	if err != nil {
		return err
	}
	platform, err := q.pushed()
	if err != nil {
		return err
	}
	return q.peer(&remote, func(m *messages) error {
		return s.push(q, m, remote, remote.Peer.Name+"/"+r.FamiliarName(), name, platform)
	})
}

// peer joins the client of q with work, which is told of the peer in remote.
func (q *request) peer(remote *engine.Remote, work func(*messages) error) error {
	peer := q.query("peer")
	if peer == "" || q.Header.Get("Upgrade") == "" {
		return errdef.Invalid("a peer needs a name, and a connection that can be upgraded")
	}
	conn, rw, err := http.NewResponseController(q.w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	const head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		return errAnswered
	}
	p := &peerConn{Conn: conn, r: rw.Reader}
	m := &messages{q: q, peer: p, begun: true} // the head of the answer is out
	remote.Peer = &engine.Peer{Name: peer, Conn: p}
	remote.Notice = func(s string) { m.send(message{Status: s}) }
	if err := work(m); err != nil {
		_ = m.fail(err) // is told, not returned
	}
	p.end()
	return errAnswered
}

// peerConn is the way to a peer within a client's connection. Closing it leaves the connection open for what is still to
// be told.
type peerConn struct {
	net.Conn

	reading sync.Mutex    // protects the following
	r       *bufio.Reader // of Conn, with what came behind the request

	mu     sync.Mutex // keeps frames whole, and protects the following
	closed bool
}

// maxFrame bounds a frame, so that messages need not wait long for their turn.
const maxFrame = 64 << 10

func (p *peerConn) Read(b []byte) (int, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	return p.r.Read(b)
}

func (p *peerConn) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n := min(len(b)-done, maxFrame)
		if err := p.frame(1, b[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

func (p *peerConn) frame(stream byte, b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stream == 1 && p.closed {
		return net.ErrClosed
	}
	parts := net.Buffers{frameHead(stream, len(b)), b}
	_, err := parts.WriteTo(p.Conn)
	return err
}

// message sends a line beside what is for the peer. A client that has gone away is told nothing.
func (p *peerConn) message(m message) {
	if line, err := json.Marshal(m); err == nil {
		_ = p.frame(2, line)
	}
}

// Close ends what is said to the peer, and what is read of it.
func (p *peerConn) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.SetReadDeadline(time.Unix(1, 0))
}

// endTime is what a client gets to read the last messages.
const endTime = 10 * time.Second

// end says that all was told, and waits for the client to go: a connection that is closed with something unread in it is
// reset, and may lose what was written.
func (p *peerConn) end() {
	_ = p.frame(2, []byte("\n"))
	if c, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_ = p.Close()
	p.reading.Lock() // the last Read is over
	defer p.reading.Unlock()
	_ = p.SetReadDeadline(time.Now().Add(endTime))
	_, _ = io.Copy(io.Discard, p.r)
}

// noPeer refuses a name that only the command line knows what to do with.
func noPeer(name string) error {
	if strings.HasPrefix(name, "ssh://") {
		return errdef.Invalid("%s: an engine starts no ssh for its clients; hull pull and hull push do, on the machine where they are typed", name)
	}
	return nil
}
