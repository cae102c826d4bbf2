package archive

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// Writer writes trees into one tar: names in order, times in whole seconds, hard links within it as such, so that the
// same tree gives the same bytes. What vanishes while it is read is left out, sockets are too.
type Writer struct {
	Owner *Owner // of all entries, instead of their own
	// Foreign says of open files and directories whether their content is left out; nil: of none.
	Foreign func(fd int) bool
	// Room is how many bytes of content there is room for where the tar goes, 0 for any number. A file that needs more,
	// holes counted as the zeros they become, is an error before anything is written of it.
	Room int64

	tar   *tar.Writer
	links map[inode]string
	named int // bytes of names in links
	buf   []byte
	taken int64 // of Room
}

// maxNames bounds the names that are remembered, in bytes: who fills a tree with links, or a tar with directories, does
// not fill the memory too.
const maxNames = 32 << 20

// entryCost is about what an entry of a map costs beside the text of its name, in bytes.
const entryCost = 64

type inode struct{ dev, ino uint64 }

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{tar: tar.NewWriter(w), links: map[inode]string{}}
}

// Close ends the tar. It does not close what it is written to.
func (w *Writer) Close() error { return w.tar.Close() }

// Add writes what is called base in the directory dir under the name name, with everything below it. base may be ".".
func (w *Writer) Add(ctx context.Context, dir int, base, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := CheckPath(name); err != nil {
		return err
	}
	for tries := 0; ; tries++ {
		again, err := w.add(ctx, dir, base, name)
		if !again || tries == 10 {
			return err
		}
	}
}

// add reports again when the name meant something else the second time it was used.
func (w *Writer) add(ctx context.Context, dir int, base, name string) (again bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, w.lost(name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := Open(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return changed(err), w.lost(name, err)
		}
		defer unix.Close(fd)
		return false, w.directory(ctx, fd, name)
	case unix.S_IFREG:
		// A FIFO that took its place must not make us wait.
		fd, err := Open(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			return changed(err), w.lost(name, err)
		}
		defer unix.Close(fd)
		if err := unix.Fstat(fd, &st); err != nil {
			return false, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return true, fmt.Errorf("%s keeps changing", name)
		}
		return false, w.file(ctx, fd, fd, name, &st)
	case unix.S_IFLNK:
		buf := make([]byte, MaxPath+1)
		n, err := unix.Readlinkat(dir, base, buf)
		if err != nil {
			return changed(err), w.lost(name, err)
		}
		hdr := w.header(name, &st)
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, string(buf[:n])
		return false, w.tar.WriteHeader(hdr)
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		return false, w.tar.WriteHeader(w.node(name, &st))
	}
	return false, nil
}

// lost forgives that a file has gone since its directory was read.
func (w *Writer) lost(name string, err error) error {
	if err == unix.ENOENT || changed(err) {
		return nil
	}
	return fmt.Errorf("read %s: %w", name, err)
}

// changed is what opening says of a name that has become a symbolic link, or no directory any more.
func changed(err error) bool { return err == unix.ELOOP || err == unix.ENOTDIR || err == unix.EINVAL }

// Entry writes the directory fd without what is in it.
func (w *Writer) Entry(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	hdr := w.header(strings.TrimSuffix(name, "/")+"/", &st)
	hdr.Typeflag = tar.TypeDir
	w.attributes(hdr, fd)
	return w.tar.WriteHeader(hdr)
}

func (w *Writer) directory(ctx context.Context, fd int, name string) error {
	if err := w.Entry(fd, name); err != nil {
		return err
	}
	if w.Foreign != nil && w.Foreign(fd) {
		return nil
	}
	names, err := Names(fd)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", name, err)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := w.Add(ctx, fd, n, strings.TrimSuffix(name, "/")+"/"+n); err != nil {
			return err
		}
	}
	return nil
}

// File writes the regular file called base in the directory dir, with the content of the file data.
func (w *Writer) File(ctx context.Context, dir int, base string, data int, name string) error {
	fd, err := Open(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return w.lost(name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return w.file(ctx, fd, data, name, &st)
}

func (w *Writer) file(ctx context.Context, fd, data int, name string, st *unix.Stat_t) error {
	hdr := w.header(name, st)
	hdr.Typeflag = tar.TypeReg
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := w.links[id]; ok {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return w.tar.WriteHeader(hdr)
		}
		if w.named < maxNames { // else it comes as a file of its own
			w.links[id] = name
			w.named += len(name) + entryCost
		}
	}
	if w.Foreign == nil || !w.Foreign(data) {
		hdr.Size = st.Size
	}
	if err := w.reserve(hdr.Size, st, name); err != nil {
		return err
	}
	w.attributes(hdr, fd)
	if err := w.tar.WriteHeader(hdr); err != nil {
		return err
	}
	return w.content(ctx, data, name, hdr.Size)
}

// reserve takes size bytes of Room for a file.
func (w *Writer) reserve(size int64, st *unix.Stat_t, name string) error {
	left := w.Room - w.taken
	if w.Room > 0 && size > left {
		holes := ""
		if used := st.Blocks * 512; used < size/2 {
			holes = fmt.Sprintf(" (%d of them are used, the rest are holes and become zeros)", used)
		}
		return errdef.Unavailable("no room for %s: it has %d bytes%s, and there is room for %d: free some, or remove the file", name, size, holes, left)
	}
	w.taken += size
	return nil
}

// content copies size bytes: of a file that grows no more, and one that has shrunk is filled up with zeros, as the
// header has been written. Holes are not read.
func (w *Writer) content(ctx context.Context, fd int, name string, size int64) error {
	if w.buf == nil {
		w.buf = make([]byte, 128<<10)
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO { // a hole up to the end
			return w.zeros(ctx, size-at)
		}
		end := size
		if err != nil { // of a file system that knows no holes
			data = at
		} else if hole, err := unix.Seek(fd, data, unix.SEEK_HOLE); err == nil {
			end = min(hole, size)
		}
		data = min(data, size)
		if err := w.zeros(ctx, data-at); err != nil {
			return err
		}
		if at, err = w.span(ctx, fd, name, data, end); err != nil {
			return err
		}
	}
	return nil
}

// span copies what lies between two places and returns the second. What a file has lost meanwhile is zeros.
func (w *Writer) span(ctx context.Context, fd int, name string, at, end int64) (int64, error) {
	for at < end {
		if ctx.Err() != nil {
			return at, context.Cause(ctx)
		}
		n, err := unix.Pread(fd, w.buf[:min(int64(len(w.buf)), end-at)], at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return at, fmt.Errorf("read %s: %w", name, err)
		}
		if n == 0 {
			return end, w.zeros(ctx, end-at)
		}
		if _, err := w.tar.Write(w.buf[:n]); err != nil {
			return at, err
		}
		at += int64(n)
	}
	return at, nil
}

func (w *Writer) zeros(ctx context.Context, n int64) error {
	clear(w.buf[:min(int64(len(w.buf)), n)])
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m, err := w.tar.Write(w.buf[:min(int64(len(w.buf)), n)])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

func (w *Writer) header(name string, st *unix.Stat_t) *tar.Header {
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, 0), Format: tar.FormatPAX,
	}
	if w.Owner != nil {
		hdr.Uid, hdr.Gid = w.Owner.UID, w.Owner.GID
	}
	return hdr
}

func (w *Writer) node(name string, st *unix.Stat_t) *tar.Header {
	hdr := w.header(name, st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		hdr.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		hdr.Typeflag = tar.TypeBlock
	default:
		hdr.Typeflag = tar.TypeFifo
		return hdr
	}
	hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	return hdr
}

// attributes adds the extended attributes of fd that mean something elsewhere. Those that cannot be read are left out.
func (w *Writer) attributes(hdr *tar.Header, fd int) {
	var buf [4096]byte
	n, err := unix.Flistxattr(fd, buf[:])
	if err != nil || n == 0 {
		return
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !portable(attr) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		if n, err := unix.Fgetxattr(fd, attr, value); err == nil {
			if hdr.PAXRecords == nil {
				hdr.PAXRecords = map[string]string{}
			}
			hdr.PAXRecords[xattrPrefix+attr] = string(value[:n])
		}
	}
}

// Whiteout writes the mark that hides what is called base in the layers below; dir is its directory, "" the root.
func (w *Writer) Whiteout(dir, base string) error {
	if dir != "" {
		dir += "/"
	}
	return w.tar.WriteHeader(&tar.Header{
		Name: dir + ".wh." + base, Typeflag: tar.TypeReg, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	})
}
