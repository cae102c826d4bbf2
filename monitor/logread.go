package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is one line of a container's log.
type Entry struct {
	Line   string            `json:"log"`    // with its newline; a piece of a long line, or an unfinished last one, has none
	Stream string            `json:"stream"` // "stdout" or "stderr"
	Time   time.Time         `json:"time"`
	Attrs  map[string]string `json:"attrs,omitempty"` // that the log driver was told to keep with each line
}

// LogOptions choose what ReadLogs returns.
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: without bound
	Tail           int       // so many of the newest lines, before the other choices apply as in Docker; negative: all
	// Follow goes on at the end of the log until ctx ends, Until has passed, or Running says false.
	Follow    bool
	Running   func() bool // asked at the end of the log; nil: always
	Segmented bool        // see LogConfig.Segmented
}

const (
	readBlock  = 64 << 10
	longestRow = 1 << 20 // of the log file; our own have at most 6 bytes for each of lineMax
	followMin  = 10 * time.Millisecond
	followMax  = 200 * time.Millisecond
)

// ReadLogs yields the lines of the log in dir (the LogDir of a container), oldest first, over all its files. While it
// follows, no line is lost or doubled by rotation, unless it falls behind by more than all the files there are. Rows
// that are damaged are left out. It looks for news by asking the file's size, not by inotify, of which a user has few
// instances for all his containers.
func ReadLogs(ctx context.Context, dir string, o LogOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		err := readLogs(ctx, dir, &o, yield)
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

func readLogs(ctx context.Context, dir string, o *LogOptions, yield func(Entry, error) bool) error {
	d, err := o.open(ctx, dir)
	if d == nil || err != nil {
		return err
	}
	var r rows = &logReader{dir: d}
	if o.Segmented {
		r = &segmentReader{dir: d}
	}
	defer r.close()
	if err := r.seek(o); err != nil {
		return err
	}
	wait, last := followMin, !o.Follow
	for {
		row, err := r.row()
		if err == nil {
			wait = followMin
			e, ok := o.choose(row)
			if ok && !yield(e, nil) || !o.Until.IsZero() && e.Time.After(o.Until) {
				return nil
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if last || !o.Until.IsZero() && time.Now().After(o.Until) {
			return nil
		}
		// Asked before the last look: what was written before the end is still read.
		if o.Running != nil && !o.Running() {
			last = true
			continue
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, followMax)
	}
}

// open opens the directory of a log, which is not there before the first line. Who follows waits for it; nil says that
// there are no lines.
func (o *LogOptions) open(ctx context.Context, dir string) (*os.File, error) {
	for wait := followMin; ; wait = min(2*wait, followMax) {
		// Asked before the look: what was written before the end is still read.
		last := !o.Follow || o.Running != nil && !o.Running() || !o.Until.IsZero() && time.Now().After(o.Until)
		d, err := openDir(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
		if last {
			return nil, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		o.Tail = -1 // all lines there will be are news
	}
}

// rows are those of a log, over all its files.
type rows interface {
	seek(o *LogOptions) error
	row() ([]byte, error) // io.EOF when there is none yet
	close()
}

// choose decodes row and reports whether it is wanted.
func (o *LogOptions) choose(row []byte) (e Entry, ok bool) {
	if err := json.Unmarshal(row, &e); err != nil {
		return Entry{}, false
	}
	return e, (o.Stdout && e.Stream == "stdout" || o.Stderr && e.Stream == "stderr") &&
		!e.Time.Before(o.Since) && (o.Until.IsZero() || !e.Time.After(o.Until))
}

// rowBuffer cuts what is read of a log into rows.
type rowBuffer struct {
	buf []byte
	at  int // buf[at:] is not read yet
}

// row returns the next row without its newline, valid until the next call; io.EOF when there is none yet. file is what is
// read now, nil for nothing, and advance is called at its end: nil means that there may be more to read.
func (b *rowBuffer) row(file func() io.Reader, advance func() error) ([]byte, error) {
	for {
		if i := bytes.IndexByte(b.buf[b.at:], '\n'); i >= 0 {
			row := b.buf[b.at : b.at+i]
			b.at += i + 1
			return row, nil
		}
		err := io.EOF
		if f := file(); f != nil {
			err = b.fill(f)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = advance()
		}
		if err != nil {
			return nil, err
		}
	}
}

// fill reads more behind what is left in the buffer.
func (b *rowBuffer) fill(f io.Reader) error {
	if len(b.buf)-b.at > longestRow {
		b.at = len(b.buf) // not a row of a log; what follows its newline may be
	}
	n := copy(b.buf, b.buf[b.at:])
	b.at = 0
	if cap(b.buf) < n+readBlock {
		b.buf = append(make([]byte, 0, 2*n+readBlock), b.buf[:n]...)
	}
	m, err := f.Read(b.buf[n : n+readBlock])
	b.buf = b.buf[:n+max(m, 0)]
	if m > 0 {
		return nil
	}
	return err
}

func (b *rowBuffer) clear() { b.buf, b.at = b.buf[:0], 0 }

// logReader reads row after row from the oldest file to the newest, by inode, while they are being renamed.
type logReader struct {
	dir  *os.File
	f    *os.File  // nil: no file yet
	next *os.File  // the successor of f, which gets no more rows: read the rest of f, then go on here
	rest rowBuffer // of f
}

func (r *logReader) close() {
	for _, f := range []*os.File{r.f, r.next, r.dir} {
		if f != nil {
			f.Close()
		}
	}
}

func (r *logReader) row() ([]byte, error) {
	return r.rest.row(func() io.Reader {
		if r.f == nil {
			return nil
		}
		return r.f
	}, r.advance)
}

// advance is called at the end of a file. It returns nil when there may be more to read now.
func (r *logReader) advance() error {
	if r.next != nil {
		r.f.Close()
		r.f, r.next = r.next, nil
		r.rest.clear() // a torn row stays behind
		return nil
	}
	next, err := r.successor(r.f)
	if err != nil {
		return err
	}
	if next == nil {
		return io.EOF
	}
	if r.f == nil {
		r.f = next
	} else {
		r.next = next // rows may have come to f since we saw its end; none come any more
	}
	return nil
}

// seek opens the file that has the first row wanted, at that row.
func (r *logReader) seek(o *LogOptions) (err error) {
	if o.Tail < 0 {
		return r.skipOld(o.Since)
	}
	if r.f, err = r.newest(); r.f == nil {
		return err
	}
	for want := o.Tail; ; {
		at, found, err := tail(r.f, want)
		if err != nil {
			return err
		}
		if want -= found; want == 0 {
			_, err := r.f.Seek(at, io.SeekStart)
			return err
		}
		before, err := r.predecessor(r.f)
		if err != nil {
			return err
		}
		if before == nil {
			_, err := r.f.Seek(0, io.SeekStart)
			return err
		}
		r.f.Close()
		r.f = before
	}
}

// skipOld goes over files whose last row is older than since.
func (r *logReader) skipOld(since time.Time) error {
	for {
		next, err := r.successor(r.f)
		if next == nil || err != nil {
			return err
		}
		if r.f != nil {
			fi, err := r.f.Stat()
			if err != nil || !fi.ModTime().Before(since) {
				next.Close()
				return err
			}
			r.f.Close()
		}
		r.f = next
	}
}

// tail finds the last n rows of f: where they begin, and how many of them there are.
func tail(f *os.File, n int) (at int64, found int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, 0, err
	}
	buf := make([]byte, min(end, readBlock))
	for at = end; at > 0; {
		block := buf[:min(at, readBlock)]
		at -= int64(len(block))
		if _, err := f.ReadAt(block, at); err != nil {
			return 0, 0, err
		}
		for {
			i := bytes.LastIndexByte(block, '\n')
			if i < 0 {
				break
			}
			if at+int64(i)+1 != end { // not the end of the last row but the start of one
				if found++; found == n {
					return at + int64(i) + 1, n, nil
				}
			}
			block = block[:i]
		}
	}
	if end > 0 {
		found++
	}
	return 0, found, nil
}

// newest opens the file with the lowest number, or returns nil.
func (r *logReader) newest() (*os.File, error) {
	for i := range 2 { // number 0 is missing for a moment in each rotation
		f, err := r.open(i)
		if f != nil || err != nil {
			return f, err
		}
	}
	return nil, nil
}

// successor opens the file that is one younger than f, or the oldest there is when f is nil or was removed. It
// returns nil when f is the newest.
func (r *logReader) successor(f *os.File) (*os.File, error) {
	for {
		k, count, err := r.find(f)
		if err != nil {
			return nil, err
		}
		if k < 0 {
			k = count
		}
		next, at, err := r.below(k)
		if err != nil {
			return nil, err
		}
		if r.unmoved(f, k, at) {
			return next, nil
		}
		if next != nil {
			next.Close()
		}
	}
}

// below opens the file with the highest number lower than k, and tells its number; -1 for none.
func (r *logReader) below(k int) (*os.File, int, error) {
	for i := k - 1; i >= 0; i-- {
		f, err := r.open(i)
		if f != nil || err != nil {
			return f, i, err
		}
	}
	return nil, -1, nil
}

// unmoved reports whether f still has number k and no file has come between it and number at: a rotation may have
// moved one there while we looked.
func (r *logReader) unmoved(f *os.File, k, at int) bool {
	for i := at + 1; i < k; i++ {
		if _, ok := r.stat(i); ok {
			return false
		}
	}
	if f == nil {
		return true
	}
	now, _, err := r.find(f)
	return err != nil || now == k || now < 0
}

// predecessor opens the file that is one older than f; nil when f is the oldest.
func (r *logReader) predecessor(f *os.File) (*os.File, error) {
	for {
		k, count, err := r.find(f)
		if err != nil || k < 0 {
			return nil, err
		}
		var before *os.File
		for i := k + 1; before == nil && i < count; i++ {
			if before, err = r.open(i); err != nil {
				return nil, err
			}
		}
		if now, _, err := r.find(f); err != nil || now == k {
			return before, err
		}
		if before != nil {
			before.Close()
		}
	}
}

// find returns the number of f, or -1, and one more than the highest number there is.
func (r *logReader) find(f *os.File) (k, count int, err error) {
	var mine unix.Stat_t
	if f != nil {
		if err := unix.Fstat(int(f.Fd()), &mine); err != nil {
			return 0, 0, err
		}
	}
	k = -1
	for i, missing := 0, 0; missing < 2; i++ { // one number may be free
		st, ok := r.stat(i)
		if !ok {
			missing++
			continue
		}
		missing, count = 0, i+1
		if f != nil && st.Ino == mine.Ino && st.Dev == mine.Dev {
			k = i
		}
	}
	return k, count, nil
}

func (r *logReader) stat(i int) (st unix.Stat_t, ok bool) {
	err := unix.Fstatat(int(r.dir.Fd()), logName(i), &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err == nil
}

// open returns file number i, or nil when there is none.
func (r *logReader) open(i int) (*os.File, error) {
	fd, err := unix.Openat(int(r.dir.Fd()), logName(i), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: logName(i), Err: err}
	}
	return os.NewFile(uintptr(fd), logName(i)), nil
}
