package cli

import (
	"cmp"
	"context"
	"os"
	"strings"

	"hull/client"
	"hull/client/ssh"
	"hull/errdef"
	"hull/ref"
)

// place reads what pull and push take: a name, which says its registry, or ssh://HOST/NAME, an image of the engine there.
// What is run there is no part of it: a reference is data, which people copy.
func place(s string) (r ref.Ref, at *ssh.Address, err error) {
	if !strings.HasPrefix(s, ssh.Scheme) {
		r, err = ref.Parse(s)
		return r, nil, err
	}
	a, name, err := ssh.Parse(s)
	if err != nil {
		return ref.Ref{}, nil, err
	}
	if name == "" {
		return ref.Ref{}, nil, errdef.Invalid("%s names no image: %s/NAME[:TAG]", s, a)
	}
	r, err = ref.Parse(name)
	return r, &a, err
}

// What the other side runs. People name it where it is not "hull" in the PATH of a login without a terminal, or where
// another user's engine is meant: "sudo hull".
const (
	remoteVariable = "HULL_SSH_COMMAND"
	remoteProgram  = "hull"
	serveStdio     = " registry serve --stdio"
)

// firstOfHTTP2 is how an HTTP/2 server begins: the length of its settings, in three bytes.
const firstOfHTTP2 = "\x00\x00"

// reach connects to the store of the engine at a.
func (a *app) reach(ctx context.Context, at ssh.Address, arguments string) (*ssh.Conn, error) {
	return ssh.Dial(ctx, at, ssh.Options{
		Command: cmp.Or(os.Getenv(remoteVariable), remoteProgram) + arguments,
		Begins:  firstOfHTTP2,
		Say:     func(line string) { a.err.println(line) },
	})
}

// pullFrom brings an image of the engine at the other end of ssh, and shows how that goes.
func (a *app) pullFrom(ctx context.Context, c *client.Client, t *transfer, at ssh.Address, r ref.Ref, o client.PullOptions) error {
	conn, err := a.reach(ctx, at, serveStdio)
	if err != nil {
		return err
	}
	o.Tag = wanted(r)
	m, err := c.ImagePullFrom(ctx, client.Peer{Name: at.String(), Conn: conn}, r.Name(), o)
	if err == nil {
		err = t.show(m)
	}
	return conn.Explain(err)
}

// pushTo stores an image at the engine at the other end of ssh, under the name it has here, and shows how that goes.
func (a *app) pushTo(ctx context.Context, c *client.Client, t *transfer, at ssh.Address, r ref.Ref, o client.PushOptions) error {
	conn, err := a.reach(ctx, at, serveStdio+" --writable")
	if err != nil {
		return err
	}
	m, err := c.ImagePushTo(ctx, client.Peer{Name: at.String(), Conn: conn}, r.Name(), o)
	if err == nil {
		err = t.show(m)
	}
	return conn.Explain(err)
}
