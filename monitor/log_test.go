package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var all = LogOptions{Stdout: true, Stderr: true, Tail: -1}

func collect(t *testing.T, dir string, o LogOptions) (lines []string) {
	t.Helper()
	for e, err := range ReadLogs(t.Context(), dir, o) {
		must(t, err)
		lines = append(lines, e.Line)
	}
	return lines
}

// feed writes text as a pump does, in pieces of the given size.
func feed(l *logger, text string, piece int) {
	var buf []byte
	for len(text) > 0 {
		n := min(piece, len(text))
		buf = append(buf, text[:n]...)
		text = text[n:]
		buf = buf[l.write("stdout", time.Now(), buf, text == ""):]
	}
}

func openTestLog(t *testing.T, cfg LogConfig) (*logger, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), LogDir)
	l, err := openLog(dir, cfg)
	must(t, err)
	t.Cleanup(l.close)
	return l, dir
}

func TestLogFormat(t *testing.T) {
	l, dir := openTestLog(t, LogConfig{})
	at := time.Date(2026, 11, 23, 1, 2, 3, 120000000, time.FixedZone("", 3600))
	l.write("stderr", at, []byte("a\t\"b\" \\ \x00\x1b[0m \xff é\r\n"), false)
	got, err := os.ReadFile(filepath.Join(dir, LogFile))
	must(t, err)
	want := `{"log":"a\t\"b\" \\ \u0000\u001b[0m \ufffd é\r\n","stream":"stderr","time":"2026-11-23T00:02:03.12Z"}` + "\n"
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLogLines(t *testing.T) {
	long := strings.Repeat("x", lineMax)
	wide := strings.Repeat("é", lineMax/2)
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"no newline at the end", "a\nb", []string{"a\n", "b"}},
		{"empty lines", "\n\n", []string{"\n", "\n"}},
		{"full piece", long + "\n", []string{long, "\n"}},
		{"longer", long + long + "y\nz\n", []string{long, long, "y\n", "z\n"}},
		{"rune at the cut", "a" + wide + "\n", []string{"a" + wide[:lineMax-2], "é\n"}},
		{"not UTF-8 at the cut", strings.Repeat("\xff", lineMax) + "\n", []string{strings.Repeat("\ufffd", lineMax), "\n"}},
	} {
		for _, piece := range []int{1000, lineMax, 1 << 20} {
			l, dir := openTestLog(t, LogConfig{})
			feed(l, tt.text, piece)
			if got := collect(t, dir, all); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
				t.Errorf("%s by %d: got %.200q", tt.name, piece, got)
			}
		}
	}
}

func TestLogRotation(t *testing.T) {
	for files := 1; files <= 4; files++ {
		l, dir := openTestLog(t, LogConfig{MaxSize: 1000, MaxFile: files})
		var text strings.Builder
		for i := range 200 {
			fmt.Fprintf(&text, "line %d\n", i)
		}
		for line := range strings.Lines(text.String()) {
			feed(l, line, 100)
		}
		list, err := os.ReadDir(dir)
		must(t, err)
		if len(list) != files {
			t.Errorf("%d files, want %d", len(list), files)
		}
		for _, e := range list {
			if fi, _ := e.Info(); fi.Size() > 1000 {
				t.Errorf("%s has %d bytes", e.Name(), fi.Size())
			}
		}
		got := strings.Join(collect(t, dir, all), "")
		if !strings.HasSuffix(text.String(), got) || len(got) == 0 || strings.Count(got, "\n") <= 12*(files-1) {
			t.Errorf("%d files: got %q", files, got)
		}
	}
}

func TestTail(t *testing.T) {
	l, dir := openTestLog(t, LogConfig{MaxSize: 2000, MaxFile: 5})
	for i := range 60 {
		feed(l, fmt.Sprintf("line %d\n", i), 100)
	}
	whole := collect(t, dir, all)
	if len(whole) != 60 {
		t.Fatalf("%d lines", len(whole))
	}
	for _, n := range []int{0, 1, 2, 17, 20, 25, 26, 27, 53, 59, 60, 61, 1 << 40} {
		o := all
		o.Tail = n
		want := whole[len(whole)-min(n, len(whole)):]
		if got := collect(t, dir, o); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("tail %d: got %d lines %q", n, len(got), got)
		}
	}
	// A row across the border of two blocks read backwards.
	l, dir = openTestLog(t, LogConfig{})
	for range 30 {
		feed(l, strings.Repeat("z", 10000)+"\n", lineMax)
	}
	o := all
	for o.Tail = range 31 {
		if got := collect(t, dir, o); len(got) != o.Tail {
			t.Errorf("tail %d: got %d lines", o.Tail, len(got))
		}
	}
}

func TestSinceUntilStreams(t *testing.T) {
	l, dir := openTestLog(t, LogConfig{MaxSize: 300, MaxFile: 10})
	base := time.Unix(1e9, 0)
	for i := range 10 {
		stream := []string{"stdout", "stderr"}[i%2]
		l.write(stream, base.Add(time.Duration(i)*time.Second), fmt.Appendf(nil, "%d\n", i), false)
	}
	for _, tt := range []struct {
		o    LogOptions
		want string
	}{
		{LogOptions{Stdout: true, Tail: -1}, "0\n2\n4\n6\n8\n"},
		{LogOptions{Stderr: true, Tail: 4}, "7\n9\n"},
		{LogOptions{Stdout: true, Stderr: true, Tail: -1, Since: base.Add(7 * time.Second)}, "7\n8\n9\n"},
		{LogOptions{Stdout: true, Stderr: true, Tail: -1, Until: base.Add(time.Second)}, "0\n1\n"},
		{LogOptions{Stdout: true, Stderr: true, Tail: -1, Follow: true, Until: base.Add(time.Second)}, "0\n1\n"},
		{LogOptions{Tail: -1}, ""},
	} {
		if got := strings.Join(collect(t, dir, tt.o), ""); got != tt.want {
			t.Errorf("%+v: got %q", tt.o, got)
		}
	}
}

// TestFollowRotation: several followers see each line once and in order while files rotate under them.
func TestFollowRotation(t *testing.T) {
	const lines = 20000
	l, dir := openTestLog(t, LogConfig{MaxSize: 5000, MaxFile: 40})
	done := make(chan struct{})
	running := func() bool {
		select {
		case <-done:
			return false
		default:
			return true
		}
	}
	var followers sync.WaitGroup
	var seen [4]atomic.Int64 // lines, by follower
	for f := range seen {
		followers.Go(func() {
			defer seen[f].Store(lines) // also of one that failed
			i := 0
			for e, err := range ReadLogs(t.Context(), dir, LogOptions{Stdout: true, Tail: -1, Follow: true, Running: running}) {
				if err != nil {
					t.Error(err)
				}
				if want := fmt.Sprintf("line %d\n", i); e.Line != want {
					t.Errorf("got %q, want %q", e.Line, want)
					return
				}
				i++
				seen[f].Store(int64(i))
			}
			if i != lines {
				t.Errorf("%d lines", i)
			}
		})
	}
	for i := range lines {
		l.write("stdout", time.Now(), fmt.Appendf(nil, "line %d\n", i), false)
		for f := range seen { // stay within the 40 files, which hold twice as many lines
			for int64(i)-seen[f].Load() > 1000 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}
	close(done)
	followers.Wait()
}

func TestFollowEndsWithContext(t *testing.T) {
	l, dir := openTestLog(t, LogConfig{})
	feed(l, "a\n", 10)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var got []string
	var last error
	for e, err := range ReadLogs(ctx, dir, LogOptions{Stdout: true, Tail: -1, Follow: true}) {
		if last = err; err == nil {
			got = append(got, e.Line)
		}
	}
	if len(got) != 1 || last != context.DeadlineExceeded {
		t.Errorf("got %q, %v", got, last)
	}
}

// TestSilentLog: a log that gets no line makes no file, and who follows from before the first line misses none.
func TestSilentLog(t *testing.T) {
	l, dir := openTestLog(t, LogConfig{})
	if got := collect(t, dir, all); got != nil {
		t.Errorf("lines without a log: %q", got)
	}
	lines := make(chan string, 2)
	o := all
	o.Follow, o.Tail = true, 0
	asked := make(chan struct{})
	var once sync.Once
	o.Running = func() bool {
		once.Do(func() { close(asked) })
		return len(lines) == 0
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var following sync.WaitGroup
	following.Go(func() {
		for e, err := range ReadLogs(ctx, dir, o) {
			if err != nil {
				t.Error(err)
				return
			}
			lines <- e.Line
		}
	})
	<-asked
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a log without a line: %v", err)
	}
	feed(l, "first\n", 100)
	following.Wait()
	if len(lines) != 1 || <-lines != "first\n" {
		t.Error("the first line was missed")
	}
}

// TestDiskFull: the container goes on, no torn line stays, and the log says what is missing.
func TestDiskFull(t *testing.T) {
	needRoot(t, "it mounts a small tmpfs")
	mnt := t.TempDir()
	must(t, unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { unix.Unmount(mnt, unix.MNT_DETACH) })
	dir := filepath.Join(mnt, LogDir)
	l, err := openLog(dir, LogConfig{})
	must(t, err)
	t.Cleanup(l.close)
	ballast := filepath.Join(mnt, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 40<<10), 0o600))
	feed(l, "before\n", 100)
	feed(l, strings.Repeat("lost\n", 1000), 1000)
	must(t, os.Remove(ballast))
	feed(l, "after\n", 100)
	got := collect(t, dir, all)
	text := strings.Join(got, "")
	if got[0] != "before\n" || got[len(got)-1] != "after\n" || !strings.Contains(text, "lines are missing here: ") {
		t.Errorf("got %.300q … %q", text, got[len(got)-2:])
	}
	missing := 0
	for _, line := range got {
		var n int
		fmt.Sscanf(line, "hull: %d lines", &n)
		missing += n
	}
	if kept := strings.Count(text, "lost\n"); kept+missing != 1000 || missing == 0 {
		t.Errorf("%d kept and %d missing of 1000", kept, missing)
	}
}

func TestReadForeignLog(t *testing.T) {
	dir := t.TempDir()
	log := `{"log":"docker\n","stream":"stdout","attrs":{"tag":"x"},"time":"2026-01-02T03:04:05.6Z"}` + "\n" +
		"garbage\n\x00\x00\n" + `{"log":"torn` + "\n" +
		`{"stream":"stderr","time":"2026-01-02T03:04:05Z","log":"other order"}` + "\n" + `{"log":"unfinished`
	must(t, os.WriteFile(filepath.Join(dir, LogFile), []byte(log), 0o600))
	if got := collect(t, dir, all); fmt.Sprintf("%q", got) != `["docker\n" "other order"]` {
		t.Errorf("got %q", got)
	}
}

func BenchmarkLogYes(b *testing.B) {
	dir := filepath.Join(b.TempDir(), LogDir)
	l, err := openLog(dir, LogConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.close()
	p := bytes.Repeat([]byte("y\n"), lineMax/2)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		l.write("stdout", time.Now(), p, false)
	}
}
