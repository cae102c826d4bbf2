package monitor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// segmentLog returns a segmented log of small files, and where it is.
func segmentLog(t *testing.T, cfg LogConfig) (*logs, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), LogDir)
	l, err := openLogs(dir, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, dir
}

// texts are the lines of the log in dir that o chooses.
func texts(t *testing.T, dir string, o LogOptions) []string {
	t.Helper()
	o.Stdout, o.Stderr, o.Segmented = true, true, true
	var got []string
	for e, err := range ReadLogs(t.Context(), dir, o) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSpace(e.Line))
	}
	return got
}

func TestSegments(t *testing.T) {
	l, dir := segmentLog(t, LogConfig{Driver: LogLocal, MaxSize: 1000, MaxFile: 3, Attrs: map[string]string{"a": "b"}})
	at := time.Now()
	for i := range 100 {
		l.write("stdout", at.Add(time.Duration(i)*time.Second), fmt.Appendf(nil, "line %d\n", i), false)
	}
	l.close()
	names, err := filepath.Glob(dir + "/*")
	if err != nil || len(names) != 3 {
		t.Fatalf("want 3 segments, got %v (%v)", names, err)
	}
	all := texts(t, dir, LogOptions{Tail: -1})
	if len(all) == 0 || len(all) >= 100 || all[len(all)-1] != "line 99" {
		t.Fatalf("want the newest lines of 100, got %d: %v", len(all), all)
	}
	// Compressed ones are read as the others are.
	d, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	numbers, err := segmentNumbers(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := squeeze(d, numbers[len(numbers)-1]); err != nil {
		t.Fatal(err)
	}
	if gz, _ := filepath.Glob(dir + "/*.gz"); len(gz) != 2 {
		t.Fatalf("want 2 compressed segments, got %v", gz)
	}
	if got := texts(t, dir, LogOptions{Tail: -1}); fmt.Sprint(got) != fmt.Sprint(all) {
		t.Errorf("want %v, got %v", all, got)
	}
	for _, n := range []int{0, 1, 5, len(all) - 1, len(all), len(all) + 5} {
		want := all[max(0, len(all)-n):]
		if got := texts(t, dir, LogOptions{Tail: n}); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("tail %d: want %v, got %v", n, want, got)
		}
	}
	if got := texts(t, dir, LogOptions{Tail: -1, Since: at.Add(97 * time.Second)}); len(got) != 3 {
		t.Errorf("since: want 3 lines, got %v", got)
	}
	// A new start goes on where the last one ended.
	l, err = openLogs(dir, &LogConfig{Driver: LogLocal, MaxSize: 1000, MaxFile: 3})
	if err != nil {
		t.Fatal(err)
	}
	l.write("stdout", time.Now(), []byte("again\n"), false)
	l.close()
	if got := texts(t, dir, LogOptions{Tail: 2}); fmt.Sprint(got) != "[line 99 again]" {
		t.Errorf("want [line 99 again], got %v", got)
	}
}

// TestFollowSegments follows a log while it rotates and is compressed: nothing is lost or comes twice.
func TestFollowSegments(t *testing.T) {
	l, dir := segmentLog(t, LogConfig{Driver: LogLocal, MaxSize: 2000, MaxFile: 1000})
	const lines = 500
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range lines {
			l.write("stdout", time.Now(), fmt.Appendf(nil, "%d\n", i), false)
			if i%50 == 0 {
				_ = squeeze(l.file.dir, l.file.seg.number)
			}
		}
		l.close()
	}()
	running := func() bool {
		select {
		case <-written:
			return false
		default:
			return true
		}
	}
	next := 0
	for e, err := range ReadLogs(ctx, dir, LogOptions{Stdout: true, Tail: -1, Follow: true, Running: running, Segmented: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d\n", next); e.Line != want {
			t.Fatalf("want %q, got %q", want, e.Line)
		}
		next++
	}
	if next != lines {
		t.Errorf("want %d lines, got %d", lines, next)
	}
}

func TestJournald(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	if _, err := dialJournal(path, nil); !errors.Is(err, errdef.ErrUnavailable) || !strings.Contains(err.Error(), "no journal listens") {
		t.Fatalf("want that there is no journal, got %v", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	j, err := dialJournal(path, map[string]string{"CONTAINER_NAME": "web", "L": "two\nlines"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	receive := func() (string, []byte) {
		t.Helper()
		buf, oob := make([]byte, 1<<20), make([]byte, 1000)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n]), oob[:oobn]
	}
	if probe, _ := receive(); probe != "" {
		t.Errorf("want an empty datagram first, got %q", probe)
	}
	if err := j.send(&shipped{"stderr", time.Unix(1, 5), []byte("oops\n")}); err != nil {
		t.Fatal(err)
	}
	want := "CONTAINER_NAME=web\nL\n" + string(binary.LittleEndian.AppendUint64(nil, 9)) + "two\nlines\n" +
		"PRIORITY=3\nSYSLOG_TIMESTAMP=1970-01-01T00:00:01.000000005Z\nMESSAGE=oops\n"
	if got, _ := receive(); got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	// Too large for a datagram: a file comes instead.
	big := bytes.Repeat([]byte("x"), 900<<10)
	if err := j.send(&shipped{"stdout", time.Now(), big}); err != nil {
		t.Fatal(err)
	}
	text, oob := receive()
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(cmsgs) != 1 || text != "" {
		t.Fatalf("want a descriptor alone, got %d bytes and %d messages: %v", len(text), len(cmsgs), err)
	}
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() < int64(len(big)) {
		t.Fatalf("want all of the entry in the file, got %v, %v", fi, err)
	}
	content, err := io.ReadAll(io.NewSectionReader(f, 0, fi.Size()))
	if err != nil || !bytes.Contains(content, []byte("PRIORITY=6\n")) || !bytes.Contains(content, []byte("CONTAINER_PARTIAL_MESSAGE=true\n")) {
		t.Errorf("the file lacks fields: %.300q, %v", content, err)
	}
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Errorf("the file is not sealed: %x, %v", seals, err)
	}
}

func TestSyslogFormats(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	pid := os.Getpid()
	for _, c := range []struct{ format, want string }{
		{"", fmt.Sprintf("<30>Jan  2 03:04:05 tag[%d]: hi there\n", pid)},
		{"rfc3164", fmt.Sprintf("<30>Jan  2 03:04:05 host tag[%d]: hi there\n", pid)},
		{"rfc5424", fmt.Sprintf("<30>1 2026-01-02T03:04:05Z host tag %d tag - hi there\n", pid)},
		{"rfc5424micro", fmt.Sprintf("<30>1 2026-01-02T03:04:05.678901Z host tag %d tag - hi there\n", pid)},
	} {
		s := &syslog{cfg: &SyslogConfig{Format: c.format, Facility: 3, Tag: "tag", Hostname: "host", Network: "tcp"}}
		if got := string(s.format(&shipped{"stdout", at, []byte("hi\nthere\n")})); got != c.want {
			t.Errorf("%s: want %q, got %q", c.format, c.want, got)
		}
	}
}

// TestDeadSyslog: a server that stops reading costs the container a bounded time once, and lines; when it reads again
// they are told of.
func TestDeadSyslog(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l, dir := segmentLog(t, LogConfig{Driver: LogSyslog, NonBlocking: true, Buffer: 64 << 10, MaxSize: 1 << 20, MaxFile: 2,
		Syslog: &SyslogConfig{Network: "tcp", Address: ln.Addr().String(), Format: "rfc3164", Tag: "t", Hostname: "h"}})
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	line := append(bytes.Repeat([]byte("y"), 999), '\n')
	begin := time.Now()
	for range 20000 { // more than all the buffers of a connection
		l.write("stdout", time.Now(), line, false)
	}
	if took := time.Since(begin); took > 2*time.Minute { // a time-out for each line would be hours
		t.Errorf("a dead server held the container up for %s", took)
	}
	conn.Close()
	if conn, err = ln.Accept(); err != nil { // it dials again
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	var all bytes.Buffer
	buf := make([]byte, 64<<10)
	for !bytes.Contains(all.Bytes(), []byte("lines are missing here")) {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("no word of the lost lines in %d bytes: %v", all.Len(), err)
		}
		all.Write(buf[:n])
	}
	l.close()
	if got := texts(t, dir, LogOptions{Tail: 1}); len(got) != 1 {
		t.Errorf("want the lines for hull logs, got %v", got)
	}
}

func TestSyslogNotThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	_, err = openLogs(filepath.Join(t.TempDir(), LogDir), &LogConfig{Driver: LogSyslog, Syslog: &SyslogConfig{Network: "tcp", Address: address}})
	if !errors.Is(err, errdef.ErrUnavailable) || !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("want that the connection is refused, got %v", err)
	}
}
