package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read.
const maxFile = 1 << 20

// Reader gives what is in the file now. It is safe for concurrent use, and costs one failed open where there is no file.
type Reader struct {
	paths    []string
	required bool

	// mu protects the following.
	mu   sync.Mutex
	is   unix.Stat_t // of the file that was read last
	last *Config
}

// At reads the first of the paths that is there; that none is means an empty file.
func At(paths ...string) *Reader { return &Reader{paths: paths} }

// Only reads the file at path, which has to be there.
func Only(path string) *Reader { return &Reader{paths: []string{path}, required: true} }

// Config reads the file, unless it is the one read before. A nil Reader has no file. The error, of kind ErrInvalid, says
// what is wrong with the file.
func (r *Reader) Config() (*Config, error) {
	if r == nil {
		return new(Config), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, path := range r.paths {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) && !r.required {
			continue
		}
		if err != nil {
			return nil, errdef.As(errdef.ErrInvalid, fmt.Errorf("cannot read the configuration: %w", err))
		}
		defer f.Close()
		return r.read(f, path)
	}
	return new(Config), nil
}

func (r *Reader) read(f *os.File, path string) (*Config, error) {
	var is unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &is); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if r.last != nil && r.last.Path == path && same(&is, &r.is) {
		return r.last, nil
	}
	if err := trusted(path, &is); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, fmt.Errorf("cannot read the configuration: %w", err))
	}
	if len(text) > maxFile {
		return nil, errdef.Invalid("%s has more than %d bytes: that is no configuration", path, maxFile)
	}
	c, err := Parse(path, text)
	if err != nil {
		return nil, err
	}
	c.Path = path
	r.last, r.is = c, is
	return c, nil
}

func same(a, b *unix.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// trusted refuses a file that others than its reader and root may have written: it names programs that are run.
func trusted(path string, is *unix.Stat_t) error {
	if is.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // /dev/null, or a pipe somebody made for this one command
	}
	if is.Uid != 0 && int(is.Uid) != os.Geteuid() {
		return errdef.Forbidden("%s belongs to user %d, who could choose what runs here: it has to be yours or root's", path, is.Uid)
	}
	if is.Mode&0o002 != 0 {
		return errdef.Forbidden("%s can be written by everybody: chmod o-w %s", path, path)
	}
	return nil
}
