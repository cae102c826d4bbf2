package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

const (
	logMaxSize = 10 << 20 // default of LogConfig.MaxSize
	logMaxFile = 3        // default of LogConfig.MaxFile
	// lineMax is where a line without newline is cut, as Docker cuts it: readers put the pieces together by the
	// missing newline.
	lineMax = 16 << 10
	// flushAt bounds the encoded lines in memory: `yes` grows by a factor of 40 in this format.
	flushAt = 32 << 10
)

// logger writes Docker's json-file format, one object a line:
//
//	{"log":"text\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}
//
// It never blocks the container for want of space: lines that cannot be written are counted, and the count is
// noted in the log as soon as there is room again. Files rotate between lines only, by renaming, so that a reader
// that holds a file sees all of it and finds its successor one number lower. A nil *logger keeps nothing.
//
// It is not safe for concurrent use.
type logger struct {
	path    string   // LogDir
	dir     *os.File // path; nil until the first line
	maxSize int64    // of one file; negative: without bound
	maxFile int
	f       *os.File
	size    int64
	buf     []byte    // encoded whole lines
	end     []byte    // of each line of one write: its stream and time
	lines   int64     // in buf
	attrs   []byte    // of each line, encoded
	seg     *segments // nil: Docker's files
	lost    int64     // lines dropped since the last that was written
	why     error
}

// openLog prepares the log in dir for appending. It returns nil for the driver "none". Files, and dir when it is missing,
// are made for the first line: a container that says nothing costs none.
func openLog(dir string, cfg LogConfig) (*logger, error) {
	if cfg.Driver == LogNone {
		return nil, nil
	}
	l := &logger{path: dir, maxSize: cfg.MaxSize, maxFile: cfg.MaxFile}
	if cfg.Segmented() {
		l.seg = &segments{compress: cfg.Compress}
	}
	var err error
	if l.attrs, err = encodeAttrs(cfg.Attrs); err != nil {
		return nil, err
	}
	if l.maxSize == 0 {
		l.maxSize = logMaxSize
	}
	if l.maxFile <= 0 {
		l.maxFile = logMaxFile
	}
	return l, nil
}

func (l *logger) open() error {
	if l.dir == nil {
		if err := os.Mkdir(l.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		d, err := openDir(l.path)
		if err != nil {
			return err
		}
		l.dir = d
	}
	name := LogFile
	if l.seg != nil {
		var err error
		if name, err = l.seg.current(l.dir); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(int(l.dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, fi.Size()
	return nil
}

func (l *logger) close() {
	if l == nil {
		return
	}
	l.flush()
	if l.f != nil {
		l.f.Close()
	}
	if l.seg != nil {
		l.seg.wait()
	}
	if l.dir != nil {
		l.dir.Close()
	}
}

// write takes the whole lines at the front of p, output of the named stream, and returns how many bytes it took.
// With all set, or when p is lineMax long, a rest without newline is taken too.
func (l *logger) write(stream string, at time.Time, p []byte, all bool) int {
	if l != nil {
		l.end = appendEnd(l.end[:0], stream, l.attrs, at)
	}
	taken := 0
	for rest := p; len(rest) > 0; rest = p[taken:] {
		n := lineEnd(rest, all)
		if n == 0 {
			break
		}
		if l != nil {
			l.line(rest[:n])
		}
		taken += n
	}
	if l != nil {
		l.flush()
	}
	return taken
}

// lineEnd is the length of the first line of p including its newline, or of the piece to cut off; 0 to wait for more.
func lineEnd(p []byte, all bool) int {
	for i, b := range p[:min(len(p), lineMax)] {
		if b == '\n' {
			return i + 1
		}
	}
	switch {
	case len(p) >= lineMax:
		return runeEnd(p[:lineMax])
	case all:
		return len(p)
	}
	return 0
}

// runeEnd is where to cut p so that a UTF-8 sequence at its end is not torn.
func runeEnd(p []byte) int {
	for i := len(p) - 1; i >= len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				return i
			}
			break
		}
	}
	return len(p)
}

func (l *logger) line(text []byte) {
	l.buf = append(l.buf, `{"log":"`...)
	l.buf = plainjson.AppendEscaped(l.buf, text)
	l.buf = append(l.buf, l.end...)
	l.lines++
	if len(l.buf) >= flushAt {
		l.flush()
	}
}

// appendEnd appends what follows the text of a line.
func appendEnd(b []byte, stream string, attrs []byte, at time.Time) []byte {
	b = append(b, `","stream":"`...)
	b = append(b, stream...)
	b = append(b, '"')
	b = append(b, attrs...)
	b = append(b, `,"time":"`...)
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"', '}', '\n')
}

// flush writes the collected lines, rotating before when they do not fit.
func (l *logger) flush() {
	if l.lines == 0 {
		return
	}
	if l.lost > 0 {
		l.note()
	}
	err := l.put(l.buf)
	if err != nil {
		l.lost += l.lines
		l.why = err
	}
	l.buf, l.lines = l.buf[:0], 0
}

// note writes how many lines are missing. When that fails too, they stay counted.
func (l *logger) note() {
	held, lines := l.buf, l.lines
	l.buf, l.lines = nil, 0
	text := fmt.Sprintf("hull: %d lines are missing here: %v\n", l.lost, l.why)
	l.buf = append(l.buf, `{"log":"`...)
	l.buf = plainjson.AppendEscaped(l.buf, []byte(text))
	l.buf = appendEnd(l.buf, "stderr", nil, time.Now())
	if l.put(l.buf) == nil {
		l.lost, l.why = 0, nil
	}
	l.buf, l.lines = held, lines
}

// put writes p whole or not at all.
func (l *logger) put(p []byte) error {
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if l.maxSize > 0 && l.size > 0 && l.size+int64(len(p)) > l.maxSize {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(p)
	if err != nil {
		// A torn line would swallow the next one.
		if n > 0 && l.f.Truncate(l.size) != nil {
			l.size += int64(n)
		}
		return err
	}
	l.size += int64(n)
	return nil
}

// rotate makes the current file number 1 and opens an empty one. Each rename moves a file into a free number, the
// highest first, so whatever a reader finds under the number below its own is the successor or nothing yet.
func (l *logger) rotate() error {
	if l.seg != nil {
		l.f.Close()
		l.f = nil
		l.seg.next(l.dir, l.maxFile)
		return l.open()
	}
	d := int(l.dir.Fd())
	if err := unlinkat(d, logName(l.maxFile-1)); err != nil {
		return err
	}
	for i := l.maxFile - 2; i >= 0; i-- {
		err := unix.Renameat(d, logName(i), d, logName(i+1))
		if err != nil && err != unix.ENOENT {
			return &os.LinkError{Op: "rename", Old: logName(i), New: logName(i + 1), Err: err}
		}
	}
	l.f.Close()
	l.f = nil
	return l.open()
}

// encodeAttrs is what comes between the stream and the time of each line.
func encodeAttrs(attrs map[string]string) ([]byte, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	b, err := plainjson.Marshal(attrs)
	return append([]byte(`,"attrs":`), b...), err
}

func unlinkat(dir int, name string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// logName is the name of the i-th newest log file.
func logName(i int) string {
	if i == 0 {
		return LogFile
	}
	return LogFile + "." + strconv.Itoa(i)
}
