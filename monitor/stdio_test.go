package monitor

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStdinHalfClose(t *testing.T) {
	b := newBox(t, "sh", "-c", "cat; echo end")
	b.cfg.OpenStdin, b.cfg.StdinOnce = true, true
	s := b.attach()
	// More than all buffers hold, so that both directions wait for each other in turn; some of it before the start.
	text := strings.Repeat("0123456789abcdef", 1<<16)
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		if _, err := io.WriteString(s, text); err != nil {
			t.Error(err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	b.start()
	if out, _, _ := demux(t, s); out != text+"end\n" {
		t.Errorf("%d bytes came back of %d", len(out), len(text))
	}
	b.gone()
}

func TestStdinOfSeveral(t *testing.T) {
	b := newBox(t, "sh", "-c", "while read l; do echo got $l; test $l = quit && exit 3; done")
	b.cfg.OpenStdin = true
	first, second := b.attach(), b.attach()
	b.start()
	fmt.Fprintln(first, "one")
	must(t, first.CloseWrite()) // without StdinOnce this is not the end for the container
	readUntil(t, second, "got one\n")
	fmt.Fprintln(second, "quit")
	for _, s := range []*Stream{first, second} {
		if out, _, _ := demux(t, s); !strings.HasSuffix(out, "got quit\n") {
			t.Errorf("got %q", out)
		}
	}
	b.gone()
	if st, _ := ReadState(b.dir); st.ExitCode != 3 {
		t.Errorf("exit code %d", st.ExitCode)
	}
}

// readUntil reads r until what came ends in want.
func readUntil(t *testing.T, s *Stream, want string) {
	t.Helper()
	s.SetDeadline(time.Now().Add(10 * time.Second))
	defer s.SetDeadline(time.Time{})
	var got []byte
	for !bytes.HasSuffix(got, []byte(want)) {
		var p [1]byte
		if _, err := io.ReadFull(s, p[:]); err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, p[0])
	}
}

// TestStdinUnread: a container that closes its stdin does not hang whoever writes to it.
func TestStdinUnread(t *testing.T) {
	b := newBox(t, "sh", "-c", "exec 0<&-; sleep 0.3; echo out")
	b.cfg.OpenStdin, b.cfg.StdinOnce = true, true
	s := b.attach()
	b.start()
	var err error
	for range 1000 {
		if _, err = s.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("4 MB were taken by nobody")
	}
	if out, _, _ := demux(t, s); out != "out\n" {
		t.Errorf("got %q", out)
	}
	b.gone()
}

func TestNoStdin(t *testing.T) {
	b := newBox(t, "cat")
	s := b.attach()
	b.start()
	if out, _, _ := demux(t, s); out != "" { // /dev/null ends at once
		t.Errorf("got %q", out)
	}
	b.gone()
}

func TestTerminal(t *testing.T) {
	b := newBox(t, "sh", "-c", "stty -echo; echo ready; read l; echo got $l; stty size; read l")
	b.process.Terminal = true
	b.cfg.OpenStdin = true
	s := b.attach()
	b.start()
	readUntil(t, s, "ready\r\n")
	b.ask(&Request{Op: OpResize, Width: 123, Height: 45})
	fmt.Fprintln(s, "line")
	readUntil(t, s, "got line\r\n45 123\r\n")
	fmt.Fprintln(s, "end")
	if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	b.gone()
	if got := strings.Join(collect(t, b.dir+"/"+LogDir, all), ""); got != "ready\r\ngot line\r\n45 123\r\n" {
		t.Errorf("log: %q", got)
	}
}

// TestTerminalLeft: output of the last process is not lost when it ends at once.
func TestTerminalOutputAtEnd(t *testing.T) {
	for range 20 {
		b := newBox(t, "sh", "-c", "seq 1000; printf last")
		b.process.Terminal = true
		s := b.attach()
		b.start()
		out, err := io.ReadAll(s)
		if err != nil || !bytes.HasSuffix(out, []byte("1000\r\nlast")) {
			t.Fatalf("%v, %.100q", err, out)
		}
		b.gone()
	}
}

// TestOutputHeldOutside: somebody who keeps the pipe open does not keep the container from ending, and what is in
// the pipe is not lost.
func TestOutputHeldOutside(t *testing.T) {
	b := newBox(t, "sh", "-c", "setsid sleep 20 & echo $!; sleep 0.2; exit 4")
	s := b.attach()
	from := time.Now()
	b.start()
	out, _, _ := demux(t, s)
	var pid int
	fmt.Sscan(out, &pid)
	if took := time.Since(from); pid == 0 || took < drainTimeout || took > drainTimeout+2*time.Second {
		t.Errorf("%q after %v", out, took)
	}
	unix.Kill(pid, unix.SIGKILL)
	b.gone()
}

// TestSlowReader: a client that reads slowly gets everything, also when the container has long ended.
func TestSlowReader(t *testing.T) {
	b := newBox(t, "seq", "200000")
	s := b.attach()
	b.start()
	time.Sleep(drainTimeout + 500*time.Millisecond)
	out, _, _ := demux(t, s)
	if !strings.HasSuffix(out, "\n199999\n200000\n") || strings.Count(out, "\n") != 200000 {
		t.Errorf("%d lines", strings.Count(out, "\n"))
	}
	b.gone()
}

// TestEndDoesNotWaitForReader: the end is known at once although the command in the foreground does not read, as in
// `hull run … | less`; what it had not read yet it still gets.
func TestEndDoesNotWaitForReader(t *testing.T) {
	b := newBox(t, "sh", "-c", "exec seq 100000000")
	s := b.attach()
	w := b.open()
	b.start()
	time.Sleep(100 * time.Millisecond)
	b.ask(&Request{Op: OpSignal, Signal: 9})
	from := time.Now()
	if _, err := w.Do(t.Context(), &Request{Op: OpWait}); err != nil {
		t.Error(err)
	}
	if took := time.Since(from); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if st, _ := ReadState(b.dir); st.ExitCode != 128+9 {
		t.Errorf("%+v", st)
	}
	out, _, _ := demux(t, s)
	if len(out) < 100<<10 || !strings.HasPrefix(out, "1\n2\n3\n") {
		t.Errorf("%d bytes", len(out))
	}
	b.gone()
}

// TestStalledClients: they hold up the others for the time allowed, at once and not one after the other, and are
// told when they read again.
func TestStalledClients(t *testing.T) {
	o := newOutput()
	o.foreground = 300 * time.Millisecond
	var theirs []*os.File
	for range 10 {
		a, b := pair(t)
		c := newClient(a, &Request{Stdout: true})
		close(c.answered)
		o.join(c)
		theirs = append(theirs, b)
		go func() { // as the connection's goroutine in attach; ends with the output
			hungUp(a)
			c.farewell()
			a.Close()
		}()
	}
	r, w, err := os.Pipe()
	must(t, err)
	if r, err = onPoller(r, "pipe"); err != nil {
		t.Fatal(err)
	}
	o.pump(streamStdout, r, false)
	const size = 2 << 20
	from := time.Now()
	read := make(chan string, 1)
	go func() {
		out, _, _ := demux(t, theirs[0])
		read <- out
	}()
	_, err = w.Write(make([]byte, size))
	must(t, err)
	w.Close()
	o.end(func() {})
	if took := time.Since(from); took < 300*time.Millisecond || took > 900*time.Millisecond {
		t.Errorf("held up for %v", took)
	}
	if n := len(<-read); n != size {
		t.Errorf("the client that reads got %d bytes of %d", n, size)
	}
	for _, f := range theirs[1:] {
		if out, _, system := demux(t, f); len(out) == 0 || len(out) >= size || !strings.Contains(system, "did not read for 300ms") {
			t.Errorf("%d bytes, %q", len(out), system)
		}
	}
}

func pair(t *testing.T) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestFlood: memory stays flat and the log bounded while the container writes as fast as it can, to a log and a client.
func TestFlood(t *testing.T) {
	b := newBox(t, "sh", "-c", `yes & head -c 50M /dev/zero >&2; sleep 1; kill $!`)
	b.cfg.Log.MaxSize = 1 << 20
	s := b.attach()
	var reader sync.WaitGroup
	var n int64
	reader.Go(func() { n, _ = io.Copy(io.Discard, s) })
	b.start()
	pid, _ := Alive(b.run)
	w := b.open()
	_, err := w.Do(t.Context(), &Request{Op: OpWait, Remove: true}) // keeps the monitor until it is closed
	if peak := status(t, pid, "VmHWM"); peak == 0 || peak > 20<<10 {
		t.Errorf("the monitor took %d KiB", peak)
	} else {
		t.Logf("VmHWM %d KiB", peak)
	}
	must(t, err)
	w.Close()
	reader.Wait()
	t.Logf("%d MB", n>>20)
	if n < 50<<20 {
		t.Errorf("the client got %d bytes", n)
	}
	var size int64
	list, err := os.ReadDir(b.dir + "/" + LogDir)
	must(t, err)
	for _, e := range list {
		fi, _ := e.Info()
		size += fi.Size()
	}
	if size > logMaxFile<<20 {
		t.Errorf("the log has %d bytes", size)
	}
	b.gone()
}

// status reads a number of KiB from /proc/PID/status; 0 when the process is gone.
func status(t *testing.T, pid int, key string) (kib int) {
	t.Helper()
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			fmt.Sscan(rest, &kib)
		}
	}
	return kib
}

// TestClientsComeAndGo: hundreds of clients that leave in every way leave nothing behind in the monitor.
func TestClientsComeAndGo(t *testing.T) {
	needRoot(t, "a monitor hides its descriptors from everybody else")
	b := newBox(t, "sh", "-c", "read l")
	b.cfg.OpenStdin = true
	b.start()
	pid, _ := Alive(b.run)
	before := fds(t, pid)
	var conns []*Conn
	for i := range 300 {
		c := b.open()
		conns = append(conns, c)
		switch i % 6 {
		case 0: // says nothing
		case 1:
			c.f.WriteString("not JSON\n")
		case 2:
			c.f.WriteString(`{"op":"wait"`)
		case 3:
			writeLine(c.f, &Request{Op: OpWait})
		case 4: // leaves without reading the answer, with stdin that nobody reads
			writeLine(c.f, &Request{Op: OpAttach, Stdin: true, Stdout: true})
			c.f.SetDeadline(time.Now().Add(20 * time.Millisecond))
			c.f.Write(make([]byte, 100<<10))
		case 5:
			writeLine(c.f, &Request{Op: OpAttach, Stdout: true})
			closeWrite(c.f)
		}
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "all descriptors are given back", func() bool { return fds(t, pid) <= before })
	b.ask(&Request{Op: OpSignal, Signal: 9})
	b.gone()
}

func fds(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	return len(list)
}
