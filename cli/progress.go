package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"hull/client"

	"github.com/moby/moby/api/types/jsonstream"
)

// progress shows long work: what was sent and what the server says of it. On a terminal one line at the bottom is
// rewritten, a few times a second; elsewhere only what lasts is printed; with quiet nothing.
type progress struct {
	a     *app
	quiet bool
	live  bool

	// mu protects the following.
	mu    sync.Mutex
	drawn bool
	last  time.Time
	sent  int64
	total int64 // 0 when unknown
	phase string
}

func (a *app) newProgress(quiet bool) *progress {
	return &progress{a: a, quiet: quiet, live: a.err.terminal && a.out.terminal && !quiet}
}

// upload counts what is read from in.
func (p *progress) upload(in io.Reader) io.Reader {
	if !p.live {
		return in
	}
	if f, ok := in.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
			p.total = fi.Size()
		}
	}
	return &counter{in, p, "read"}
}

// download counts what is read from a server; total is -1 when it does not say how much that is.
func (p *progress) download(in io.Reader, total int64) io.Reader {
	if !p.live {
		return in
	}
	p.total = max(0, total)
	return &counter{in, p, "written"}
}

type counter struct {
	io.Reader
	p    *progress
	verb string
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.sent += int64(n)
	if n == 0 {
		return n, err
	}
	c.p.draw(sentText(c.verb, c.p.sent, c.p.total))
	return n, err
}

func sentText(verb string, sent, total int64) string {
	if total > 0 {
		return fmt.Sprintf("%s %s of %s (%d%%)", verb, size(sent), size(total), min(100, sent*100/total))
	}
	return verb + " " + size(sent)
}

// show prints the messages until the work is done.
func (p *progress) show(m *client.Messages) error {
	err := m.Each(p.message)
	p.done()
	return err
}

func (p *progress) message(m jsonstream.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case m.Stream != "": // the result, and printed even with quiet, as Docker does
		p.erase()
		p.a.out.printf("%s\n", strings.TrimRight(m.Stream, "\n"))
	case m.Progress != nil || m.ID != "":
		if phase := m.ID + m.Status; phase != p.phase { // something new is worth a look at once
			p.phase, p.last = phase, time.Time{}
		}
		p.draw(messageText(m))
	case m.Status != "" && !p.quiet:
		p.erase()
		p.a.out.printf("%s\n", strings.TrimRight(m.Status, "\n"))
	}
}

func messageText(m jsonstream.Message) string {
	s := m.Status
	if m.ID != "" {
		s = m.ID + ": " + s
	}
	if m.Progress != nil && m.Progress.Current > 0 {
		s += " " + size(m.Progress.Current)
		if m.Progress.Total > 0 {
			s += " of " + size(m.Progress.Total)
		}
	}
	return s
}

// draw rewrites the live line, at most ten times a second.
func (p *progress) draw(s string) {
	if !p.live || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	p.erase()
	width, _ := p.a.err.size()
	p.a.err.printf("%s", cut(s, width-1))
	p.drawn = true
}

func (p *progress) erase() {
	if p.drawn {
		p.a.err.plain("\r\x1b[K")
		p.drawn = false
	}
}

// done removes the live line.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	p.live = false
}
