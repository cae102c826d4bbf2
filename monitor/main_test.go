package monitor

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hull/errdef"
	"hull/runtime"
	"hull/state"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The test binary is also the monitor that the tests spawn: real processes, with plain children in the place of
// containers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "monitor" {
		if err := serve(os.Args[2:], plain()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "ask" { // one request, by whoever we are
		c, err := dialOnce(context.Background(), os.Args[2])
		if err == nil {
			_, err = c.Do(context.Background(), &Request{Op: OpState})
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// plainPrepared leaves a trace of what was made of it.
type plainPrepared struct{ c *runtime.Config }

func (p plainPrepared) Run(context.Context) (*runtime.Container, error) {
	q, err := run(p.c.Spec.Process, p.c.Stdio)
	if err != nil {
		return nil, err
	}
	os.WriteFile(filepath.Join(p.c.Bundle, "group"), []byte(strconv.Itoa(q.Pid)), 0o600)
	return &runtime.Container{Pid: q.Pid, Pidfd: q.Pidfd, Terminal: q.Terminal, Warnings: []string{"plain process"}}, nil
}

func (p plainPrepared) Discard(context.Context) error {
	return os.WriteFile(filepath.Join(filepath.Dir(p.c.Bundle), "discarded"), nil, 0o600)
}

// plain runs a container's process as a child in a process group of its own.
func plain() containers {
	return containers{
		prepare: func(_ context.Context, c *runtime.Config) (prepared, error) { return plainPrepared{c}, nil },
		exec: func(_ context.Context, t *runtime.Target, p *specs.Process, stdio [3]*os.File) (*runtime.Process, error) {
			q, err := run(p, stdio)
			if err == nil {
				f, _ := os.OpenFile(filepath.Join(t.Spec.Root.Path, "group"), os.O_APPEND|os.O_WRONLY, 0)
				fmt.Fprintf(f, " %d", q.Pid)
				f.Close()
			}
			return q, err
		},
		delete: func(_ context.Context, c *runtime.Config) error {
			b, _ := os.ReadFile(filepath.Join(c.Bundle, "group"))
			for _, g := range strings.Fields(string(b)) {
				n, _ := strconv.Atoi(g)
				unix.Kill(-n, unix.SIGKILL)
			}
			return nil
		},
		group: func(string) (group, error) { return noGroup{}, nil },
	}
}

type noGroup struct{}

func (noGroup) OOMKilled() bool      { return false }
func (noGroup) Frozen() bool         { return false }
func (noGroup) Pids() ([]int, error) { return []int{1}, nil }

func run(p *specs.Process, stdio [3]*os.File) (*runtime.Process, error) {
	cmd := osexec.Command(p.Args[0], p.Args[1:]...)
	cmd.Env = p.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for i, set := range []func(*os.File){
		func(f *os.File) { cmd.Stdin = f }, func(f *os.File) { cmd.Stdout = f }, func(f *os.File) { cmd.Stderr = f }} {
		if stdio[i] != nil {
			set(stdio[i])
		}
	}
	var master *os.File
	if p.Terminal {
		m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return nil, err
		}
		master = m
		unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0)
		n, _ := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
		s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return nil, err
		}
		defer s.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = s, s, s
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, errdef.As(errdef.ErrCannotRun, err)
		}
		return nil, errdef.As(errdef.ErrNoCommand, err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release() // or a pidfd of its own stays open until a collection of garbage, which a monitor may never do
	return &runtime.Process{Pid: pid, Pidfd: os.NewFile(uintptr(fd), "pidfd"), Terminal: master}, nil
}

// testBox is a container of a test.
type testBox struct {
	t        *testing.T
	run, dir string // run directory, state directory
	cfg      Config
	process  specs.Process
}

func newBox(t *testing.T, args ...string) *testBox {
	t.Helper()
	tmp := t.TempDir()
	b := &testBox{t: t, run: filepath.Join(tmp, "run"), dir: filepath.Join(tmp, "state")}
	b.cfg = Config{ID: "c1", StateDir: b.dir}
	b.process = specs.Process{Args: args, Env: []string{"PATH=" + os.Getenv("PATH")}}
	must(t, os.Mkdir(b.dir, 0o700))
	t.Cleanup(func() {
		if pid, ok := Alive(b.run); ok && pid > 0 {
			t.Logf("monitor %d left over", pid)
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	return b
}

func (b *testBox) write() {
	b.t.Helper()
	spec := specs.Spec{Process: &b.process, Root: &specs.Root{Path: b.run}}
	for name, v := range map[string]any{SpecFile: spec, ConfigFile: b.cfg} {
		data, err := json.Marshal(v)
		must(b.t, err)
		must(b.t, state.Write(filepath.Join(b.run, name), data)) // whole: a monitor may be reading the old one
	}
}

func (b *testBox) open() *Conn {
	b.t.Helper()
	c, err := Open(b.t.Context(), testProgram(b.t), b.run)
	must(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	return c
}

func testProgram(t *testing.T) Program {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	return Program{Path: exe}
}

// ask sends one request to a monitor that is there and wants it to succeed.
func (b *testBox) ask(req *Request) *Response {
	b.t.Helper()
	c, err := Dial(b.t.Context(), b.run)
	must(b.t, err)
	defer c.Close()
	r, err := c.Do(b.t.Context(), req)
	must(b.t, err)
	return r
}

// attach opens a stream of stdin, stdout and stderr.
func (b *testBox) attach() *Stream {
	b.t.Helper()
	c := b.open()
	_, err := c.Do(b.t.Context(), &Request{Op: OpAttach, Stdin: true, Stdout: true, Stderr: true})
	must(b.t, err)
	return c.Stream()
}

func (b *testBox) start() {
	b.t.Helper()
	c := b.open()
	defer c.Close()
	b.write()
	_, err := c.Do(b.t.Context(), &Request{Op: OpStart})
	must(b.t, err)
}

// gone waits until the monitor has removed the run directory and ended.
func (b *testBox) gone() {
	b.t.Helper()
	eventually(b.t, "the run directory is removed", func() bool { return !exists(b.run) })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within a minute: %s", what)
}

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// demux splits the Docker stream format until its end.
func demux(t *testing.T, r io.Reader) (stdout, stderr, system string) {
	t.Helper()
	var out [4]bytes.Buffer
	var h [8]byte
	for {
		_, err := io.ReadFull(r, h[:])
		if err == io.EOF {
			return out[streamStdout].String(), out[streamStderr].String(), out[streamSystem].String()
		}
		must(t, err)
		if h[0] > 3 {
			t.Fatalf("frame header % x", h)
		}
		_, err = io.CopyN(&out[h[0]], r, int64(binary.BigEndian.Uint32(h[4:])))
		must(t, err)
	}
}
