package monitor

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"hull/errdef"
	"hull/runtime/cgroup"
)

// freezeTimeout bounds how long a freeze waits for the last process to stand still.
const freezeTimeout = 10 * time.Second

// freeze stops the container's processes for whoever wants to look at files nobody is writing, as long as the connection
// stays: with a client that is killed they go on. A container that was paused before stays so.
func (s *server) freeze(f *os.File, rest io.Reader) {
	s.mu.Lock()
	running, path := s.phase == phaseRunning, s.cfg.Cgroup
	s.mu.Unlock()
	if !running {
		answer(f, refusal(errdef.Conflict("the container is not running")))
		return
	}
	if path == "" {
		answer(f, refusal(errdef.Unavailable("the container has no cgroup, so it cannot be paused")))
		return
	}
	g, err := cgroup.Open(cgroup.Detect(), path)
	if err != nil {
		answer(f, refusal(err))
		return
	}
	if !g.Frozen() {
		ctx, cancel := context.WithTimeout(context.Background(), freezeTimeout)
		err := g.Freeze(ctx)
		cancel()
		if err != nil {
			answer(f, refusal(err))
			return
		}
		defer func() {
			if err := g.Thaw(); err != nil {
				fmt.Fprintf(os.Stderr, "hull-runtime monitor: %v\n", err)
			}
		}()
	}
	answer(f, &Response{OK: true})
	_, _ = io.Copy(io.Discard, rest) // until the connection ends
}
