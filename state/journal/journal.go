// Package journal is an append-only record of events that many processes write to and any number follow.
//
//	j := journal.Open(filepath.Join(root, "events"))
//	err := j.Append(&journal.Event{Type: "container", Action: "die", ID: id, Attributes: attrs})
//	r, err := j.Read(journal.Range{Since: yesterday, Follow: true})
//	defer r.Close()
//	for e, err := r.Next(ctx); err == nil; e, err = r.Next(ctx) { ... }
//
// An event is one line of JSON. What is appended at once is one write(2), in the order of the writes. A process may die at
// any instruction and the machine may lose its power: at most the last line is torn, and a torn line is no event. Nothing is synced: the
// journal tells what happened and promises nothing.
//
//	<dir>/journal        what is written to now
//	<dir>/journal.<n>    full and sealed (mode 0400), the highest n the youngest; the oldest are removed
//
// Beware: the journal is bounded (MaxFile bytes in each of MaxFiles+1 files), so a reader that sleeps for long finds
// that its next event has gone, and goes on with the oldest there is. Events are stamped before they are written: two
// processes may write theirs in the other order, some microseconds apart.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/state"
	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

// Bounds of a journal.
const (
	MaxFile  = 8 << 20  // bytes in a file, give or take a line
	MaxFiles = 4        // sealed files that are kept
	MaxEvent = 64 << 10 // bytes of a line; a longer event loses attributes, the longest first
)

// Event is one thing that happened, in Docker's words.
type Event struct {
	Nano       int64             `json:"time"` // since 1970; Append fills it in when it is zero
	Type       string            `json:"type"` // of the object: "container", "image", "network", "volume"
	Action     string            `json:"action"`
	ID         string            `json:"id"` // of the object
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Time is when it happened.
func (e *Event) Time() time.Time { return time.Unix(0, e.Nano) }

// Journal is one process' way to a journal. Its methods are safe for concurrent use.
type Journal struct {
	dir      string
	maxFile  int64 // MaxFile and MaxFiles, but for tests
	maxFiles int

	watch watch
}

// Open returns the journal in dir. It opens nothing and keeps nothing open: what is missing is made by the first
// Append. (A descriptor kept for the next event would save a fifth of its 15 µs.)
func Open(dir string) *Journal { return &Journal{dir: dir, maxFile: MaxFile, maxFiles: MaxFiles} }

// Dir is where the journal is.
func (j *Journal) Dir() string { return j.dir }

const (
	currentName = "journal"
	fileMode    = 0o600
	sealedMode  = 0o400
	// sealWait is how long an append waits for a process that has begun to rotate. One that was stopped in the middle
	// must not hold up the others: they write to what they have.
	sealWait = 500 * time.Millisecond
)

// Append writes events: some system calls on one file, however many they are, and nobody's come between them. It does not
// wait for readers or other writers.
func (j *Journal) Append(events ...*Event) error {
	lines := []byte{'\n'} // see write
	for _, e := range events {
		if e.Nano == 0 {
			e.Nano = time.Now().UnixNano()
		}
		line, err := encode(e)
		if err != nil {
			return fmt.Errorf("event %s: %w", e.Action, err)
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := j.append(lines); err != nil {
		return &fs.PathError{Op: "append", Path: filepath.Join(j.dir, currentName), Err: err}
	}
	return nil
}

// encode makes the line of e, without a newline.
func encode(e *Event) ([]byte, error) {
	b, err := plainjson.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxEvent {
		small := *e
		small.Attributes = fewer(e.Attributes, MaxEvent/2)
		small.Action = e.Action[:min(len(e.Action), MaxEvent/8)]
		if b, err = plainjson.Marshal(&small); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// fewer keeps the shortest attributes, which are ours: the long ones are labels.
func fewer(attrs map[string]string, limit int) map[string]string {
	keys := make([]string, 0, len(attrs))
	for k := range attrs {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return len(a) + len(attrs[a]) - len(b) - len(attrs[b]) })
	out := make(map[string]string, len(keys))
	for _, k := range keys {
		// A byte may become six in JSON: \u0001.
		if limit -= 6 * (len(k) + len(attrs[k])); limit < 0 {
			break
		}
		out[k] = attrs[k]
	}
	return out
}

// append writes lines to the current file. A shared lock keeps the file from being sealed meanwhile, so that nobody
// who has read a sealed file to its end has missed a line.
func (j *Journal) append(line []byte) error {
	for deadline := time.Now().Add(sealWait); ; {
		fd, err := j.current()
		if err != nil {
			return err
		}
		done, err := j.appendTo(fd, line, deadline)
		if err := errors.Join(err, unix.Close(fd)); done || err != nil {
			return err
		}
		if err := j.settle(); err != nil {
			return err
		}
	}
}

// appendTo writes to the open file fd, unless that is sealed: then done is false, until the deadline.
func (j *Journal) appendTo(fd int, line []byte, deadline time.Time) (done bool, err error) {
	locked := share(fd, deadline)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if (st.Mode&0o777 == sealedMode || st.Nlink == 0) && time.Now().Before(deadline) {
		return false, nil
	}
	if err := write(fd, st.Size, line); err != nil {
		return false, err
	}
	if locked && st.Size >= j.maxFile {
		j.rotate(fd) // a failure leaves a longer file, and the next append tries again
	}
	return true, nil
}

// current opens the current file, making it when missing.
func (j *Journal) current() (int, error) {
	path := filepath.Join(j.dir, currentName)
	const flags = unix.O_RDWR | unix.O_APPEND | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	for deadline := time.Now().Add(sealWait); ; {
		fd, err := unix.Open(path, flags, fileMode)
		switch late := time.Now().After(deadline); {
		case err == unix.ENOENT && !late:
			if err := os.MkdirAll(j.dir, 0o700); err != nil {
				return -1, err
			}
		case err == unix.EACCES && !late: // without root: sealed, and the next one is not in place yet
			if err := j.settle(); err != nil {
				return -1, err
			}
		default:
			return fd, err
		}
	}
}

// share locks the file fd against being sealed; false when the time is over.
func share(fd int, deadline time.Time) bool {
	for {
		switch err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); {
		case err == nil:
			return true
		case err != unix.EINTR && (err != unix.EWOULDBLOCK || time.Now().After(deadline)):
			return false
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// write appends a line that begins with a newline. That is left out where the file ends in one; it ends otherwise
// after a power cut or on a full disk, and then only the torn line is lost.
func write(fd int, size int64, line []byte) error {
	var last [1]byte
	if size == 0 {
		line = line[1:]
	} else if n, err := unix.Pread(fd, last[:], size-1); err == nil && n == 1 && last[0] == '\n' {
		line = line[1:]
	}
	for {
		n, err := unix.Write(fd, line)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n < len(line):
			return unix.ENOSPC // the rest would be torn off by what others write in between
		}
		return nil
	}
}

// rotate seals the current file and puts an empty one in its place, unless somebody else writes to it just now or is
// about to do the same.
func (j *Journal) rotate(fd int) {
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil && unix.Fchmod(fd, sealedMode) == nil {
		_ = j.settle() // or the next append does
	}
}

// settle finishes a rotation that somebody began, or ours: a sealed current file gets its number, an empty one takes
// its place, and the oldest are removed. Idempotent; of several at once one works.
func (j *Journal) settle() error {
	l, ok, err := state.TryLock(j.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody removed all of it; it is made again
	}
	if err != nil {
		return err
	}
	if !ok {
		time.Sleep(200 * time.Microsecond)
		return nil
	}
	defer l.Unlock()
	path := filepath.Join(j.dir, currentName)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&0o777 != sealedMode {
		return nil // done meanwhile
	}
	numbers, err := j.numbers()
	if err != nil {
		return err
	}
	next := 1
	if n := len(numbers); n > 0 {
		next = numbers[n-1] + 1
	}
	if st.Nlink == 1 {
		if err := unix.Link(path, j.sealed(next)); err != nil {
			return err
		}
		numbers = append(numbers, next)
	}
	tmp := filepath.Join(j.dir, state.TempName())
	fd, err := unix.Open(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return err
	}
	unix.Close(fd)
	if err := unix.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	for len(numbers) > j.maxFiles {
		if err := os.Remove(j.sealed(numbers[0])); err != nil {
			return err
		}
		numbers = numbers[1:]
	}
	return nil
}

func (j *Journal) sealed(n int) string {
	return filepath.Join(j.dir, currentName+"."+strconv.Itoa(n))
}

// numbers are those of the sealed files, ascending.
func (j *Journal) numbers() ([]int, error) {
	d, err := os.Open(j.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, name := range names {
		if s, ok := strings.CutPrefix(name, currentName+"."); ok {
			if n, err := strconv.Atoi(s); err == nil && n > 0 {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// decode reads a line; a torn one is errdef.ErrCorrupt.
func decode(line []byte) (*Event, error) {
	e := new(Event)
	if err := plainjson.Unmarshal(line, e); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, err)
	}
	if e.Nano == 0 || e.Type == "" || e.Action == "" {
		return nil, errdef.As(errdef.ErrCorrupt, errors.New("a line of the journal is no event"))
	}
	return e, nil
}
