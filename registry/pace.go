package registry

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxPause is the longest wait between two tries, and maxAsked the longest that a registry may ask for.
const (
	maxPause = 15 * time.Second
	maxAsked = 2 * time.Minute
)

// commitTime is what a registry gets to store an upload whose last byte it has: some copy it then.
const commitTime = 10 * time.Minute

// pace says how long to wait before a request is made again, and when to give up. Progress starts it anew, so that it
// counts failures in a row, not failures.
type pace struct {
	host  *host
	fails int
}

// wait sleeps, and is false when there is no further try. resp and err are how the last one ended.
func (p *pace) wait(ctx context.Context, resp *http.Response, err error) bool {
	if p.fails++; p.fails >= p.host.tries {
		return false
	}
	pause := min(p.host.first<<(p.fails-1), maxPause)
	pause += time.Duration(rand.Int64N(int64(pause)/4 + 1))
	why := ""
	switch {
	case resp != nil:
		why = http.StatusText(resp.StatusCode)
		asked := retryAfter(resp.Header.Get("Retry-After"), time.Now())
		if asked > maxAsked {
			return false
		}
		pause = max(pause, asked)
	case err != nil:
		why = err.Error()
	}
	if pause >= time.Second {
		p.host.notice(p.host.place.Addr + ": " + why + ": trying again in " + pause.Round(time.Second).String())
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retryAfter reads the header, which is a number of seconds or a date. What cannot be read is no wish.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// watch calls a function unless it is fed in time. It rests between stop and the next feed.
type watch struct {
	limit time.Duration
	timer *time.Timer
}

func newWatch(limit time.Duration, bite func()) *watch {
	return &watch{limit, time.AfterFunc(limit, bite)}
}

func (w *watch) feed() { w.timer.Reset(w.limit) }
func (w *watch) stop() { w.timer.Stop() }

// watchedBody is what is sent: as long as somebody takes it, the connection lives.
type watchedBody struct {
	io.ReadCloser
	watch *watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.feed()
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.watch.timer.Reset(max(b.watch.limit, commitTime))
	}
	return n, err
}

// answerBody is the body of an answer. The time its reader takes between two reads does not count.
type answerBody struct {
	io.ReadCloser
	watch  *watch
	ctx    context.Context
	cancel context.CancelCauseFunc
	once   sync.Once
}

func (b *answerBody) Read(p []byte) (int, error) {
	b.watch.feed()
	n, err := b.ReadCloser.Read(p)
	b.watch.stop()
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *answerBody) Close() error {
	b.once.Do(func() {
		b.watch.stop()
		b.cancel(nil)
	})
	return b.ReadCloser.Close()
}
