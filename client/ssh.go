package client

import (
	"cmp"
	"context"
	"net"
	"sync/atomic"

	"hull/client/ssh"
	"hull/errdef"
)

// dialSSH makes every connection a process of ssh, whose other end is a connection to the engine there.
func dialSSH(host string, o SSH) (Dial, error) {
	at, rest, err := ssh.Parse(host)
	if err != nil {
		return nil, err
	}
	if rest != "" {
		return nil, errdef.Invalid("%s: an address of an engine over ssh has no path: %s", host, at)
	}
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := ssh.Dial(ctx, at, ssh.Options{
			Command: cmp.Or(o.Command, "hull") + " system dial-stdio", Begins: "HTTP/1.", Say: o.Say,
		})
		if err != nil {
			return nil, err
		}
		return &overSSH{Conn: conn}, nil
	}, nil
}

// overSSH is a connection that says why nothing came.
type overSSH struct {
	*ssh.Conn
	answered atomic.Bool
}

func (c *overSSH) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.answered.Store(true)
	}
	if err != nil && !c.answered.Load() {
		err = c.Explain(err)
	}
	return n, err
}
