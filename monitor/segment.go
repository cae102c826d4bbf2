package monitor

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	osexec "os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Segments are files of log lines in Docker's json-file format, numbered without end. The highest one grows; the others
// are finished, and compressed in the background: 00000007.log becomes 00000007.log.gz by rename, so that under each
// number there is always one of the two, until the segment is removed as the oldest. A reader knows where it is by the
// number alone.
//
// Beware: compression takes a megabyte of memory, so a process of its own does it.
type segments struct {
	compress bool
	number   int // of the one that grows; 0 until known

	squeezing sync.WaitGroup
	mu        sync.Mutex // protects busy
	busy      bool
}

func segmentName(n int) string {
	s := strconv.Itoa(n)
	return strings.Repeat("0", max(0, 8-len(s))) + s + ".log"
}

const squeezed = ".gz"

// segmentNumbers lists the segments in dir, in order.
func segmentNumbers(dir *os.File) ([]int, error) {
	names, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	var all []int
	for _, name := range names {
		base, ok := strings.CutSuffix(strings.TrimSuffix(name, squeezed), ".log")
		if n, err := strconv.Atoi(base); ok && err == nil && n > 0 {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func readDir(dir *os.File) ([]string, error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir.Name(), Err: err}
	}
	f := os.NewFile(uintptr(fd), dir.Name())
	defer f.Close()
	return f.Readdirnames(-1)
}

// current is the name of the segment that grows.
func (s *segments) current(dir *os.File) (string, error) {
	if s.number == 0 {
		all, err := segmentNumbers(dir)
		if err != nil {
			return "", err
		}
		s.number = 1
		if len(all) > 0 {
			s.number = all[len(all)-1]
			var st unix.Stat_t
			if unix.Fstatat(int(dir.Fd()), segmentName(s.number), &st, unix.AT_SYMLINK_NOFOLLOW) != nil { // it is finished
				s.number++
			}
		}
	}
	return segmentName(s.number), nil
}

// next finishes the current segment and removes the oldest ones, to keep at most maxFile with the new one.
func (s *segments) next(dir *os.File, maxFile int) {
	s.number++
	all, err := segmentNumbers(dir)
	if err != nil {
		return // the next rotation tries again
	}
	for _, n := range all[:max(0, len(all)-(maxFile-1))] {
		_ = unlinkat(int(dir.Fd()), segmentName(n))
		_ = unlinkat(int(dir.Fd()), segmentName(n)+squeezed)
	}
	if s.compress {
		s.squeeze(dir)
	}
}

// squeeze starts a process that compresses what is finished, unless one is at it: the next rotation takes the rest.
func (s *segments) squeeze(dir *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return
	}
	cmd := osexec.Command("/proc/self/exe", "squeeze", strconv.Itoa(s.number))
	cmd.Stdin = dir
	cmd.Env = []string{"GOMAXPROCS=1"}
	if cmd.Start() != nil {
		return // the segment stays as it is
	}
	s.busy = true
	s.squeezing.Go(func() {
		_ = cmd.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy = false
	})
}

// wait for the compression under way.
func (s *segments) wait() { s.squeezing.Wait() }

// Squeeze is `hull-runtime squeeze N` with the directory as stdin: it compresses the segments below number N.
func Squeeze(args []string) int {
	if len(args) != 1 {
		return 1
	}
	end, err := strconv.Atoi(args[0])
	if err != nil {
		return 1
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	if squeeze(os.Stdin, end) != nil {
		return 1
	}
	return 0
}

func squeeze(dir *os.File, end int) error {
	all, err := segmentNumbers(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range all {
		if n < end {
			if err := squeezeOne(int(dir.Fd()), segmentName(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// squeezeOne replaces the file name by a compressed one of the same time. Killed, it leaves the file and part of a copy,
// which the next one replaces.
func squeezeOne(dir int, name string) error {
	in, err := openIn(dir, name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	tmp := name + ".tmp"
	out, err := openIn(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return err
	}
	defer out.Close()
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close()); err != nil {
		return errors.Join(err, unlinkat(dir, tmp))
	}
	t := unix.NsecToTimespec(fi.ModTime().UnixNano())
	if err := unix.UtimesNanoAt(dir, tmp, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Renameat(dir, tmp, dir, name+squeezed); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: name + squeezed, Err: err}
	}
	return unlinkat(dir, name)
}

func openIn(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// segmentReader reads row after row from the oldest segment to the newest.
type segmentReader struct {
	dir  *os.File
	n    int       // of the one being read; 0 before the first
	f    *os.File  // of number n
	z    io.Reader // f, or what it holds uncompressed
	last bool      // a later segment is there: f gets no more rows
	rest rowBuffer // of f
}

func (r *segmentReader) close() {
	if r.f != nil {
		r.f.Close()
	}
	r.dir.Close()
}

func (r *segmentReader) row() ([]byte, error) {
	return r.rest.row(func() io.Reader { return r.z }, r.advance)
}

// advance is called at the end of a segment. It returns nil when there may be more to read now.
func (r *segmentReader) advance() error {
	all, err := segmentNumbers(r.dir)
	if err != nil {
		return err
	}
	i, _ := slices.BinarySearch(all, r.n+1)
	if i == len(all) {
		return io.EOF
	}
	if r.f != nil && !r.last {
		r.last = true // rows may have come to it since we saw its end; none come any more
		return nil
	}
	return r.open(all[i])
}

// open goes to the beginning of segment n; one that was removed meanwhile is empty.
func (r *segmentReader) open(n int) error {
	if r.f != nil {
		r.f.Close()
		r.f, r.z = nil, nil
	}
	r.n, r.last = n, false
	r.rest.clear()
	name := segmentName(n)
	f, err := openIn(int(r.dir.Fd()), name, unix.O_RDONLY)
	if err == nil {
		r.f, r.z = f, f
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err = openIn(int(r.dir.Fd()), name+squeezed, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(f)
	if err != nil { // damaged: as good as removed
		f.Close()
		return nil
	}
	r.f, r.z, r.last = f, z, true
	return nil
}

// seek goes to the first row wanted.
func (r *segmentReader) seek(o *LogOptions) error {
	all, err := segmentNumbers(r.dir)
	if err != nil || len(all) == 0 {
		return err
	}
	if o.Tail < 0 {
		for len(all) > 1 && r.older(all[0], o) {
			all = all[1:]
		}
		return r.open(all[0])
	}
	want := o.Tail
	for _, n := range slices.Backward(all) {
		rows, err := r.count(n)
		if err != nil {
			return err
		}
		if rows >= want || n == all[0] {
			if err := r.open(n); err != nil {
				return err
			}
			return r.skip(rows - want)
		}
		want -= rows
	}
	return nil
}

// older reports whether all rows of segment n are older than what is wanted.
func (r *segmentReader) older(n int, o *LogOptions) bool {
	for _, name := range []string{segmentName(n), segmentName(n) + squeezed} {
		var st unix.Stat_t
		if unix.Fstatat(int(r.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return st.Mtim.Nano() < o.Since.UnixNano() && !o.Since.IsZero()
		}
	}
	return true
}

// count tells how many rows segment n has.
func (r *segmentReader) count(n int) (rows int, err error) {
	if err := r.open(n); err != nil || r.z == nil {
		return 0, err
	}
	buf := make([]byte, readBlock)
	for {
		m, err := r.z.Read(buf)
		rows += bytes.Count(buf[:max(m, 0)], []byte{'\n'})
		if err != nil { // the end, or damage: what can be read counts
			return rows, nil
		}
	}
}

func (r *segmentReader) skip(rows int) error {
	for ; rows > 0; rows-- {
		if _, err := r.row(); err != nil {
			return nil // fewer than there were: the rest is what is wanted
		}
	}
	return nil
}
