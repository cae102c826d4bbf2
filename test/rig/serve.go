package rig

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is `hull serve` for an engine of a test, in a network namespace of its own, where bridges, ports and firewall
// tables are nobody else's.
type Server struct {
	*exec.Cmd
	Socket string
	Host   string // for DOCKER_HOST

	h *Hull
	t testing.TB
}

// Serve starts a server and waits until it answers. It ends with t.
func (h *Hull) Serve(t testing.TB) *Server {
	t.Helper()
	s := &Server{h: h, t: t, Socket: h.Dir + "/s"}
	s.Host = "unix://" + s.Socket
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts the server again after its end, in a new network namespace.
func (s *Server) Start() {
	s.t.Helper()
	// A program of its own brings the loopback device up, before there is a hull.
	s.Cmd = exec.Command("/bin/sh", "-c", Tool(s.t, "busybox")+` ip link set lo up && exec "$0" "$@"`, Bin(s.t, "hulld"), "serve", "--host", s.Host)
	s.Cmd.Env = append(s.h.Env, "DOCKER_HOST=")
	s.Cmd.Dir = s.h.Dir
	s.Cmd.Stderr = os.Stderr
	s.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := s.Cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	Eventually(s.t, "the server answers", func() bool {
		conn, err := net.Dial("unix", s.Socket)
		if err != nil {
			return false
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprint(conn, "GET /_ping HTTP/1.0\r\n\r\n")
		var b [15]byte
		n, _ := conn.Read(b[:])
		return strings.Contains(string(b[:n]), "200")
	})
}

// Stop ends the server and waits for it.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill kills the server.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	if s.Cmd.ProcessState != nil {
		return
	}
	s.Cmd.Process.Signal(sig)
	hard := time.AfterFunc(Patience(30*time.Second), func() {
		s.t.Errorf("the server does not end")
		s.Cmd.Process.Kill()
	})
	defer hard.Stop()
	s.Cmd.Wait()
}

// Client asks the server over connections of its own.
func (s *Server) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		Dial:              func(string, string) (net.Conn, error) { return net.Dial("unix", s.Socket) },
	}}
}

// Files is how many descriptors the server has open.
func (s *Server) Files() int {
	s.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(names)
}
