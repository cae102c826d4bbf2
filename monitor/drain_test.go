package monitor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trickle takes a little of what each connection to ln sends, again and again, until the test is over.
func trickle(t *testing.T, ln net.Listener, n int, pause time.Duration) {
	t.Helper()
	over := t.Context().Done()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, n)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					select {
					case <-over:
						return
					case <-time.After(pause):
					}
				}
			}()
		}
	}()
}

// TestTricklingSyslog: a message is taken in time or not at all, however often the server takes a part of it.
func TestTricklingSyslog(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "log"))
	must(t, err)
	defer ln.Close()
	trickle(t, ln, 16<<10, 10*time.Millisecond) // a minute and more for all of it
	s := &syslog{cfg: &SyslogConfig{Network: "unix", Address: ln.Addr().String()}, fd: -1}
	s.begin()
	must(t, s.dial())
	defer s.close()
	if err := s.write(make([]byte, 100<<20)); err != unix.ETIMEDOUT {
		t.Errorf("want ETIMEDOUT, got %v", err)
	}
}

// slow is a sink that takes one line from time to time.
type slow struct{ sent int }

func (s *slow) send(*shipped) error {
	time.Sleep(100 * time.Millisecond)
	s.sent++
	return nil
}

func (*slow) close() {}

// TestDrainEnds: what is queued at the end keeps the container only for a while.
func TestDrainEnds(t *testing.T) {
	const lines = 1000
	to := new(slow)
	s := newShipper(to, &LogConfig{NonBlocking: true, Buffer: 1 << 20})
	for range lines {
		s.add("stdout", time.Now(), []byte("line\n"))
	}
	s.close()
	if to.sent == 0 || to.sent == lines {
		t.Errorf("want some of the lines, not all: %d", to.sent)
	}
}

// TestRelayWords: what the program that speaks TLS says is told, but only the beginning of it is kept.
func TestRelayWords(t *testing.T) {
	prog := filepath.Join(t.TempDir(), "relay")
	must(t, os.WriteFile(prog, fmt.Appendf(nil, "#!/bin/sh\nexec >&-\necho no server >&2\nhead -c 10000000 /dev/zero | tr '\\0' x >&2\n"), 0o700))
	_, err := openSyslog(&SyslogConfig{Network: "tcp+tls", Relay: []string{prog}})
	if err == nil || !strings.Contains(err.Error(), "no server") || len(err.Error()) > 2*maxRelayWords {
		t.Errorf("want the beginning of what it said, got %.200v", err)
	}
}
