package journal

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Range says which events to read. A zero bound is none; both hold including the moment itself.
type Range struct {
	Since, Until time.Time
	// Tail begins with what is appended after Read, whatever Since says.
	Tail bool
	// Follow waits for more at the end, until Until.
	Follow bool
	// With, when not empty, is text that a line must hold: a cheap filter, as an id is.
	With string
}

// Reader reads events in the order in which they were written. It is for one goroutine.
type Reader struct {
	j    *Journal
	r    Range
	f    *os.File // nil while there is no journal
	n    int      // number of f; 0 when it was the current one when opened
	wait *waiter

	buf   []byte
	begin int   // of what is not consumed in buf
	at    int64 // offset in f of the end of buf
	skip  bool  // the rest of a line too long to be one of ours
}

// Read begins to read; what is appended after it has returned is not missed. An absent journal is an empty one.
func (j *Journal) Read(r Range) (*Reader, error) {
	rd := &Reader{j: j, r: r}
	if r.Follow {
		rd.wait = j.watch.join(j.dir)
	}
	var err error
	if r.Tail {
		var f *os.File
		if f, err = rd.open(0); err == nil && f != nil {
			rd.beginWith(f, 0)
			rd.at, err = f.Seek(0, io.SeekEnd)
		}
	} else {
		err = rd.openOldest()
	}
	if err != nil {
		rd.Close()
		return nil, err
	}
	return rd, nil
}

// Close gives back what the reader holds.
func (r *Reader) Close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
	if r.wait != nil {
		r.wait.leave()
		r.wait = nil
	}
}

// open opens sealed file n, or the current one for 0. A current one that is not there is nil.
func (r *Reader) open(n int) (*os.File, error) {
	path := filepath.Join(r.j.dir, currentName)
	if n > 0 {
		path = r.j.sealed(n)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == unix.ENOENT && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// beginWith goes on with f from its beginning.
func (r *Reader) beginWith(f *os.File, n int) {
	if r.f != nil {
		r.f.Close()
	}
	r.f, r.n, r.at, r.buf, r.begin, r.skip = f, n, 0, r.buf[:0], 0, false
}

// goTo goes on with the first sealed file that is good, or else with the current one. That is opened before the
// others are listed: what is sealed in between is on the list, or is the one that is open.
func (r *Reader) goTo(good func(n int) bool) error {
	current, err := r.open(0)
	if err != nil {
		return err
	}
	numbers, err := r.j.numbers()
	for _, n := range numbers {
		if !good(n) {
			continue
		}
		if f, err := r.open(n); err == nil { // else removed meanwhile
			if current != nil {
				current.Close()
			}
			r.beginWith(f, n)
			return nil
		}
	}
	if err == nil && current != nil {
		r.beginWith(current, 0)
	} else if current != nil {
		current.Close()
	}
	return err
}

// openOldest opens the first file that can hold what is asked for: a file is no older than its last write.
func (r *Reader) openOldest() error {
	return r.goTo(func(n int) bool {
		st, err := os.Stat(r.j.sealed(n))
		return err == nil && (r.r.Since.IsZero() || !st.ModTime().Add(time.Second).Before(r.r.Since))
	})
}

// Next returns the next event. At the end it is io.EOF, or, when following, waits; Until ends it either way. When ctx
// ends it is the cause.
func (r *Reader) Next(ctx context.Context) (*Event, error) {
	for {
		var changed <-chan struct{}
		if r.wait != nil {
			changed = r.wait.next() // before the look, or a change between the two would be missed
		}
		line, err := r.line()
		if err != nil {
			return nil, err
		}
		if line != nil {
			if e := r.wanted(line); e != nil {
				return e, nil
			}
			continue
		}
		moved, err := r.advance()
		if err != nil {
			return nil, err
		}
		if moved {
			continue
		}
		if r.wait == nil || r.over() {
			return nil, io.EOF
		}
		if err := r.pause(ctx, changed); err != nil {
			return nil, err
		}
	}
}

func (r *Reader) over() bool { return !r.r.Until.IsZero() && !time.Now().Before(r.r.Until) }

// pause waits until the journal may have changed, or Until has come.
func (r *Reader) pause(ctx context.Context, changed <-chan struct{}) error {
	wait := recheck
	if !r.r.Until.IsZero() {
		wait = min(wait, time.Until(r.r.Until)+time.Millisecond)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-changed:
	case <-t.C:
	}
	return nil
}

// wanted decodes a line, and returns nil when it is no event of the range.
func (r *Reader) wanted(line []byte) *Event {
	if r.r.With != "" && !bytes.Contains(line, []byte(r.r.With)) {
		return nil
	}
	e, err := decode(line)
	if err != nil {
		return nil
	}
	t := e.Time()
	if !r.r.Tail && !r.r.Since.IsZero() && t.Before(r.r.Since) || !r.r.Until.IsZero() && t.After(r.r.Until) {
		return nil
	}
	return e
}

// line returns the next whole line without its newline, valid until the next call; nil at the end of the file.
func (r *Reader) line() ([]byte, error) {
	if r.f == nil {
		return nil, nil
	}
	for {
		if i := bytes.IndexByte(r.buf[r.begin:], '\n'); i >= 0 {
			line := r.buf[r.begin : r.begin+i]
			r.begin += i + 1
			if r.skip {
				r.skip = false
				continue
			}
			if len(line) > 0 {
				return line, nil
			}
			continue
		}
		if len(r.buf)-r.begin > 2*MaxEvent {
			r.skip, r.begin = true, len(r.buf)
		}
		more, err := r.fill()
		if err != nil || !more {
			return nil, err
		}
	}
}

// fill reads on; false at the end of the file.
func (r *Reader) fill() (bool, error) {
	const chunk = 32 << 10
	n := copy(r.buf, r.buf[r.begin:])
	r.buf, r.begin = r.buf[:n], 0
	if cap(r.buf)-n < chunk {
		r.buf = append(make([]byte, 0, 2*cap(r.buf)+chunk), r.buf...)
	}
	m, err := r.f.ReadAt(r.buf[n:n+chunk], r.at)
	r.buf = r.buf[:n+m]
	r.at += int64(m)
	if err == io.EOF {
		err = nil
	}
	return m > 0, err
}

// advance goes from a sealed file, which was read to its end, to the next one. Until then it is false.
func (r *Reader) advance() (bool, error) {
	if r.f == nil {
		err := r.openOldest() // all of it came after Read
		return r.f != nil, err
	}
	st, err := r.f.Stat()
	if err != nil {
		return false, err
	}
	if st.Mode().Perm() != sealedMode {
		return false, nil
	}
	// Sealed after the last look, perhaps with lines in between.
	if st.Size() > r.at {
		return true, nil
	}
	if now, err := os.Stat(filepath.Join(r.j.dir, currentName)); err != nil || os.SameFile(st, now) {
		return false, nil // it has no number yet: somebody is about to put the next one there
	}
	own := r.n
	numbers, err := r.j.numbers()
	if err != nil {
		return false, err
	}
	for _, n := range numbers {
		if own == 0 {
			if other, err := os.Stat(r.j.sealed(n)); err == nil && os.SameFile(st, other) {
				own = n
			}
		}
	}
	// Where its own number is not known the file has been removed, and the oldest there is comes next.
	return true, r.goTo(func(n int) bool { return n > own })
}
