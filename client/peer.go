package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
)

// Peer is another engine that the caller has reached. Conn is closed with what ImagePullFrom and ImagePushTo return, and by
// their errors; it has CloseWrite.
type Peer struct {
	Name string // as messages call it
	Conn net.Conn
}

// ImagePullFrom is ImagePull from a peer instead of a registry. Only Hull has it.
func (c *Client) ImagePullFrom(ctx context.Context, p Peer, name string, o PullOptions) (*Messages, error) {
	q := url.Values{"name": {name}, "peer": {p.Name}}
	text(q, "tag", o.Tag)
	text(q, "platform", o.Platform)
	flag(q, "allPlatforms", o.AllPlatforms)
	return c.peer(ctx, p, request{path: "/hull/v1/peer/pull", query: q})
}

// ImagePushTo is ImagePush to a peer instead of a registry. Only Hull has it.
func (c *Client) ImagePushTo(ctx context.Context, p Peer, name string, o PushOptions) (*Messages, error) {
	q := url.Values{"name": {name}, "peer": {p.Name}}
	text(q, "tag", o.Tag)
	text(q, "compress", o.Compress)
	if o.Platform != "" {
		j, err := platformJSON(o.Platform)
		if err != nil {
			p.Conn.Close()
			return nil, err
		}
		q.Set("platform", j)
	}
	return c.peer(ctx, p, request{path: "/hull/v1/peer/push", query: q, auth: o.Auth, auths: o.Auths})
}

// peer has the engine speak with p through this process, which the engine does in the frames of the first kind; the second
// are messages.
func (c *Client) peer(ctx context.Context, p Peer, r request) (*Messages, error) {
	r.method, r.bare, r.upgrade = http.MethodPost, true, true
	s, err := c.hijack(ctx, r)
	if err != nil {
		p.Conn.Close()
		return nil, c.notHull(r, err)
	}
	j := &joint{stream: s, peer: p.Conn}
	body, lines := io.Pipe()
	j.PipeReader = body
	j.stop = context.AfterFunc(ctx, func() { s.Close() })
	j.work.Go(func() {
		// Errors are seen by the engine, which misses what was to come.
		_, _ = io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{p.Conn})
		_ = s.CloseWrite()
	})
	j.work.Go(func() {
		err := s.Copy(&deaf{w: p.Conn}, &untilEnd{lines, j})
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if j.ended {
			err = nil
		}
		lines.CloseWithError(err)
	})
	return &Messages{ctx, j, json.NewDecoder(j)}, nil
}

// joint is the messages of an engine that is joined with a peer.
type joint struct {
	*io.PipeReader
	stream *Stream
	peer   net.Conn
	stop   func() bool
	work   sync.WaitGroup
	ended  bool // the engine said so
}

// deaf writes as long as there is somebody who reads. The engine finds out by itself, and what it says about it comes
// through the same stream.
type deaf struct {
	w    io.Writer
	gone bool
}

func (d *deaf) Write(p []byte) (int, error) {
	if !d.gone {
		_, err := d.w.Write(p)
		d.gone = err != nil
	}
	return len(p), nil
}

// untilEnd looks for the newline, which is in no message, by which the engine says that there is none to come. A
// connection that just ends has lost some.
type untilEnd struct {
	w *io.PipeWriter
	j *joint
}

func (u *untilEnd) Write(p []byte) (int, error) {
	u.j.ended = bytes.HasSuffix(p, []byte("\n"))
	return u.w.Write(p)
}

// Close ends both connections, and waits until nothing is copied any more.
func (j *joint) Close() error {
	j.stop()
	j.stream.Close()
	j.PipeReader.Close()
	err := j.peer.Close()
	j.work.Wait()
	return err
}
