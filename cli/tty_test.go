package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// fakeEnv makes this test program hull, with the fake engine on that socket.
const fakeEnv = "HULL_CLI_TEST_SOCKET"

func TestMain(m *testing.M) {
	if sock := os.Getenv(fakeEnv); sock != "" {
		p := (&fake{sock: sock}).program()
		p.Stdin, p.Stdout, p.Stderr = os.Stdin, os.Stdout, os.Stderr
		os.Exit(Main(p, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// command is a command line of hull as a process of its own.
func (f *fake) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), fakeEnv+"="+f.sock)
	return cmd
}

// terminal runs a command line that stays on a terminal.
func (f *fake) terminal(args ...string) (*terminal, *exec.Cmd) {
	f.t.Helper()
	cmd := f.command(args...)
	return newTerminal(f.t, cmd), cmd
}

// terminal is a rig.Terminal whose modes can be looked at from beside the program on it.
type terminal struct {
	*rig.Terminal
	t   *testing.T
	tty *os.File
}

func newTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	p := &terminal{Terminal: rig.Pty(t, cmd), t: t}
	var err error
	if p.tty, err = os.OpenFile(fmt.Sprintf("/proc/%d/fd/0", cmd.Process.Pid), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.tty.Close() })
	return p
}

// settings are the modes of the terminal, to compare before and after.
func (p *terminal) settings() unix.Termios {
	p.t.Helper()
	s, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *s
}

// shell is a container with a terminal: it greets, echoes lines and ends with status 3 at "exit" or release.
type shell struct {
	once sync.Once
	gone chan struct{}
}

func newShell(f *fake) *shell {
	s := &shell{gone: make(chan struct{})}
	f.on("POST /containers/"+fakeID+"/attach", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		greeting := "ready\r\n"
		if r.URL.Query().Get("stdin") == "" { // no terminal: frames
			greeting = string(frame(1, greeting))
		}
		io.WriteString(c, greeting)
		go s.echo(rw, c)
		<-s.gone
	})
	f.on("POST /containers/"+fakeID+"/wait", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-s.gone
		io.WriteString(w, `{"StatusCode":3}`)
	})
	f.t.Cleanup(s.release)
	return s
}

func (s *shell) release() { s.once.Do(func() { close(s.gone) }) }

func (s *shell) echo(r io.Reader, w io.Writer) {
	b := make([]byte, 100)
	for {
		n, err := r.Read(b)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "got %q\r\n", b[:n])
		if strings.Contains(string(b[:n]), "exit") {
			s.release()
			return
		}
	}
}

func (f *fake) eventually(what string, ok func([]request) bool) {
	f.t.Helper()
	var seen []request
	for end := time.Now().Add(rig.Patience(10 * time.Second)); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if seen = append(seen, f.took()...); ok(seen) {
			return
		}
	}
	f.t.Fatalf("%s did not come; there were %v", what, seen)
}

func asked(prefix string) func([]request) bool {
	return func(list []request) bool {
		return slices.ContainsFunc(list, func(r request) bool { return strings.HasPrefix(r.String(), prefix) })
	}
}

// TestTerminal: keys reach the container one by one, the terminal is as before afterwards.
func TestTerminal(t *testing.T) {
	f := newFake(t)
	newShell(f)
	p, _ := f.terminal("run", "-it", "app:1", "sh")
	before := p.settings()
	p.Expect("ready")
	p.Send("\x03") // no signal, but a key
	p.Expect(`got "\x03"`)
	if p.settings() == before {
		t.Error("the terminal is not raw during the session")
	}
	f.eventually("size at creation", asked(`POST /containers/create? {"AttachStderr":true,"AttachStdin":true,"AttachStdout":true,"Cmd":["sh"],"HostConfig":{"ConsoleSize":[24,80]`))
	p.Resize(100, 30)
	f.eventually("resize", asked("POST /containers/"+fakeID+"/resize?h=30&w=100"))
	p.Send("exit")
	if code := p.Wait(); code != 3 {
		t.Errorf("exit status: want 3, got %d", code)
	}
	if after := p.settings(); after != before {
		t.Errorf("terminal settings: want %+v, got %+v", before, after)
	}
}

// TestDetachKeys: keys that may begin the sequence are held back, and passed on when they do not.
func TestDetachKeys(t *testing.T) {
	f := newFake(t)
	newShell(f)
	p, _ := f.terminal("run", "-it", "--detach-keys", "ctrl-a,d", "app:1", "sh")
	before := p.settings()
	p.Expect("ready")
	p.Send("\x01")
	p.Send("x")
	p.Expect(`got "\x01x"`)
	p.Send("\x01d")
	p.Expect("read escape sequence")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit status: want 0, got %d", code)
	}
	if after := p.settings(); after != before {
		t.Errorf("terminal settings: want %+v, got %+v", before, after)
	}
}

// TestSignalOnTerminal: a signal is passed on or ends the client; either way the terminal is as before.
func TestSignalOnTerminal(t *testing.T) {
	for _, tt := range []struct {
		proxy bool
		code  int
	}{{true, 3}, {false, 128 + int(syscall.SIGTERM)}} {
		t.Run(fmt.Sprint("proxy=", tt.proxy), func(t *testing.T) {
			f := newFake(t)
			s := newShell(f)
			p, cmd := f.terminal("run", "-it", fmt.Sprint("--sig-proxy=", tt.proxy), "app:1", "sh")
			before := p.settings()
			p.Expect("ready")
			p.Send("x")
			p.Expect(`got "x"`)
			f.eventually("resize, the last request before signals", asked("POST /containers/"+fakeID+"/resize"))
			cmd.Process.Signal(syscall.SIGTERM)
			if tt.proxy {
				f.eventually("the signal", asked("POST /containers/"+fakeID+"/kill?signal=SIGTERM"))
				s.release()
			}
			if code := p.Wait(); code != tt.code {
				t.Errorf("exit status: want %d, got %d", tt.code, code)
			}
			if after := p.settings(); after != before {
				t.Errorf("terminal settings: want %+v, got %+v", before, after)
			}
		})
	}
}

// TestInterruptedStart: a signal while the container is made lets the step come to its end, or cuts it off when it
// comes again; --rm takes back what was made.
func TestInterruptedStart(t *testing.T) {
	for _, again := range []bool{false, true} {
		f := newFake(t)
		begun, signalled := make(chan struct{}), make(chan struct{})
		f.on("POST /containers/"+fakeID+"/attach", func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			if again {
				<-r.Context().Done()
				return
			}
			<-signalled
			stream(false, "", "")(w, r)
		})
		f.on("DELETE /containers/"+fakeID, empty(http.StatusNoContent))
		p, cmd := f.terminal("run", "--rm", "app:1")
		<-begun
		cmd.Process.Signal(syscall.SIGINT)
		if again {
			cmd.Process.Signal(syscall.SIGTERM)
		} else {
			time.Sleep(50 * time.Millisecond) // until it is noted; too short only makes the test weaker
			close(signalled)
		}
		if code := p.Wait(); code <= 128 {
			t.Errorf("again %v: want a status of a signal, got %d; %s", again, code, p.Seen())
		}
		f.eventually("removal", func(list []request) bool {
			if asked("POST /containers/" + fakeID + "/start")(list) {
				t.Errorf("again %v: it was started although it was interrupted", again)
			}
			return asked("DELETE /containers/" + fakeID + "?force=1&v=1")(list)
		})
	}
}

// TestEarlySignal: one that comes while the container starts reaches it.
func TestEarlySignal(t *testing.T) {
	f := newFake(t)
	s := newShell(f)
	begun, signalled := make(chan struct{}), make(chan struct{})
	f.on("POST /containers/"+fakeID+"/start", func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-signalled
	})
	p, cmd := f.terminal("run", "app:1")
	<-begun
	cmd.Process.Signal(syscall.SIGTERM)
	time.Sleep(50 * time.Millisecond)
	close(signalled)
	f.eventually("the signal", asked("POST /containers/"+fakeID+"/kill?signal=SIGTERM"))
	s.release()
	if code := p.Wait(); code != 3 {
		t.Errorf("exit status: want 3, got %d; %s", code, p.Seen())
	}
}

// TestAttachRedraws: the size changes and changes back, so that a shell shows its prompt again.
func TestAttachRedraws(t *testing.T) {
	f := newFake(t)
	newShell(f)
	info := fakeInspect()
	info["Config"].(map[string]any)["Tty"] = true
	f.on("GET /containers/web/json", answer(info))
	p, _ := f.terminal("attach", "web")
	p.Expect("ready")
	f.eventually("two sizes", func(list []request) bool {
		return asked("POST /containers/"+fakeID+"/resize?h=25&w=80")(list) && asked("POST /containers/"+fakeID+"/resize?h=24&w=80")(list)
	})
	p.Send("exit")
	if code := p.Wait(); code != 3 {
		t.Errorf("exit status: want 3, got %d", code)
	}
}

// TestInsisting: the third interrupt of a container that ignores them ends the client.
func TestInsisting(t *testing.T) {
	f := newFake(t)
	newShell(f)
	p, cmd := f.terminal("run", "app:1", "sleep")
	p.Expect("ready")
	for range enough - 1 {
		f.took()
		cmd.Process.Signal(syscall.SIGINT)
		f.eventually("the signal", asked("POST /containers/"+fakeID+"/kill?signal=SIGINT"))
	}
	cmd.Process.Signal(syscall.SIGINT)
	p.Expect("the container goes on")
	if code := p.Wait(); code != 128+int(syscall.SIGINT) {
		t.Errorf("exit status: want 130, got %d", code)
	}
}

// TestPanicOnTerminal: even a bug leaves the terminal usable.
func TestPanicOnTerminal(t *testing.T) {
	p := newTerminal(t, exec.Command("/bin/sleep", "60"))
	before := p.settings()
	s := newScreen(p.tty)
	func() {
		defer func() { recover() }()
		s.guarded(func() {
			if err := s.raw(); err != nil {
				t.Error(err)
			}
			if p.settings() == before {
				t.Error("not raw")
			}
			panic("a bug")
		})
	}()
	if after := p.settings(); after != before {
		t.Errorf("terminal settings: want %+v, got %+v", before, after)
	}
}

// TestTableFitsTerminal: a table has the terminal's width, and what is foreign shows its control characters.
func TestTableFitsTerminal(t *testing.T) {
	f := newFake(t)
	list := fakeContainers()
	list[0]["Names"] = []string{"/a\x1b]0;owned\x07b"}
	list[0]["Image"] = "registry.example:5000/some/very/long/path/to/an/image:with-a-tag"
	f.on("GET /containers/json", answer(list))
	p := rig.Pty(t, f.command("ps", "-a"))
	if code := p.Wait(); code != 0 {
		t.Fatalf("exit status %d: %s", code, p.Seen())
	}
	p.Expect("db\r\n")
	for line := range strings.Lines(p.Seen()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > 80 {
			t.Errorf("a line of %d characters on a terminal of 80: %s", n, line)
		}
	}
	p = rig.Pty(t, f.command("ps", "-a", "--format", "{{.Names}}"))
	p.Expect(`a\x1b]0;owned\ab`)
	if strings.Contains(p.Seen(), "\x1b") {
		t.Errorf("an escape sequence reached the terminal: %q", p.Seen())
	}
}

// TestProgress: long work shows itself on a terminal, and the line is gone when the result comes.
func TestProgress(t *testing.T) {
	f := newFake(t)
	more := make(chan struct{})
	f.on("POST /images/load", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"id":"abc","status":"unpacking","progressDetail":{"current":1000,"total":4000}}`+"\n")
		w.(http.Flusher).Flush()
		<-more
		io.WriteString(w, `{"stream":"Loaded image: app:1\n"}`+"\n")
	})
	archive := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(archive, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := rig.Pty(t, f.command("load", "-i", archive))
	p.Expect("abc: unpacking 1kB of 4kB")
	close(more)
	p.Expect("\r\x1b[KLoaded image: app:1\r\n")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestSaveTerminal: an archive on a terminal helps nobody.
func TestSaveTerminal(t *testing.T) {
	f := newFake(t)
	p := rig.Pty(t, f.command("save", "app:1"))
	p.Expect("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	if code := p.Wait(); code != 1 {
		t.Errorf("exit status %d", code)
	}
}

// TestVisible is the same for every kind of character that does more than appear.
func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain\tä\n":     "plain\tä\n",
		"\x1b[2J":        `\x1b[2J`,
		"\u009b2J":       `\u009b2J`,
		"\x9b2J":         `\x9b2J`,
		"a\rb\x00\x7f":   `a\rb\x00\x7f`,
		"a\u202eb\u2066": `a\u202eb\u2066`,
		"\u2028":         `\u2028`,
	} {
		if got := string(visible([]byte(in))); got != want {
			t.Errorf("visible(%q): want %s, got %s", in, want, got)
		}
	}
}
