// Package files works on the files of a container from within: it is what `hull-runtime files` does, a process that has
// joined the user and mount namespace of a running container, or has mounted the root of another where nobody sees it.
//
//	hull-runtime files   3: the Job, JSON · 0: a tar to be written · 1: the Reply, a line of JSON, then a tar or lines
//
// So the kernel checks each access with the rights that root of the container has and no others, and a name can mean
// nothing outside the container, however its files are exchanged meanwhile (CVE-2018-15664). No program and no library of
// the container is executed or loaded: this one is static, and what it reads is never code (CVE-2019-14271).
//
// Beware: /proc is the container's here; nothing may be looked up in it.
package files

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"hull/archive"
	"hull/errdef"

	"golang.org/x/sys/unix"
)

// What a Job asks for.
const (
	OpStat    = "stat"    // what is at Path
	OpRead    = "read"    // and a tar of it
	OpWrite   = "write"   // extract the tar from stdin into the directory Path
	OpExport  = "export"  // a tar of the root, without what is mounted below
	OpChanges = "changes" // lines of JSON, one Change each: how Upper differs from Lower
	OpLayer   = "layer"   // the same as the tar of an image layer
)

// Job is one request.
type Job struct {
	Op   string `json:"op"`
	Path string `json:"path,omitempty"`
	// Root is to be mounted, and made the root directory; nil: that of the namespace that was joined.
	Root *Root `json:"root,omitempty"`
	// Lower, topmost first, and Upper are directories of the host, absolute, for OpChanges and OpLayer.
	Lower []string `json:"lower,omitempty"`
	Upper string   `json:"upper,omitempty"`
	// Room is archive.Writer's, for OpLayer.
	Room int64 `json:"room,omitempty"`
	// SameKind, Owner and Weak are those of archive.Extraction.
	SameKind bool           `json:"sameKind,omitempty"`
	Owner    *archive.Owner `json:"owner,omitempty"`
	Weak     bool           `json:"weak,omitempty"`
	// FUSE are the devices, as stat(2) has them, of file systems in user space that the host gave the container. Any
	// other may be the container's own, and never answer.
	FUSE []uint64 `json:"fuse,omitempty"`
}

// Reply says how it went, or how it began where a stream follows. A stream that ends early is told by the exit status,
// with the error on stderr.
type Reply struct {
	Kind  string `json:"kind,omitempty"` // of Error, see errdef.Name
	Error string `json:"error,omitempty"`
	Stat  *Stat  `json:"stat,omitempty"`
}

// Err is the failure that the reply carries.
func (r *Reply) Err() error {
	if r.Error == "" {
		return nil
	}
	return errdef.Named(r.Kind, errors.New(r.Error))
}

// Stat describes a file.
type Stat struct {
	Name    string      `json:"name"`
	Size    int64       `json:"size"`
	Mode    fs.FileMode `json:"mode"`
	ModTime time.Time   `json:"modTime"`
	Link    string      `json:"link,omitempty"` // where a symbolic link leads in the end, absolute
}

// JobFD is the descriptor that a Job is read from.
const JobFD = 3

// Main carries out the job and returns the exit status.
func Main() int {
	unix.Umask(0)
	var job Job
	f := os.NewFile(JobFD, "job")
	err := json.NewDecoder(f).Decode(&job)
	f.Close()
	s := &server{job: &job, in: os.Stdin, out: bufio.NewWriterSize(os.Stdout, 64<<10)}
	if err == nil {
		err = s.run(context.Background())
	}
	if err != nil && !s.begun {
		s.reply(&Reply{Kind: errdef.Name(err), Error: err.Error()})
		err = nil
	}
	if e := s.out.Flush(); err == nil {
		err = e
	}
	if err != nil {
		fmt.Fprint(os.Stderr, err)
		return 1
	}
	return 0
}

// server is one job under way.
type server struct {
	job   *Job
	in    io.Reader
	out   *bufio.Writer
	begun bool // the reply is written
}

// reply is called once.
func (s *server) reply(r *Reply) {
	s.begun = true
	_ = json.NewEncoder(s.out).Encode(r) // a bufio.Writer keeps its first error
}

func (s *server) run(ctx context.Context) error {
	switch s.job.Op {
	case OpChanges:
		return s.changes(ctx)
	case OpLayer:
		return s.layer(ctx)
	}
	if s.job.Root != nil {
		if err := s.job.Root.enter(s.job.Op != OpExport); err != nil {
			return err
		}
	}
	switch s.job.Op {
	case OpStat:
		return s.stat()
	case OpRead:
		return s.read(ctx)
	case OpWrite:
		return s.write(ctx)
	case OpExport:
		return s.export(ctx)
	}
	return errdef.Invalid("unknown job %q", s.job.Op)
}

func (s *server) stat() error {
	o, err := s.find(s.job.Path)
	if err != nil {
		return err
	}
	defer o.close()
	s.reply(&Reply{Stat: &o.stat})
	return nil
}

func (s *server) read(ctx context.Context) error {
	o, err := s.find(s.job.Path)
	if err != nil {
		return err
	}
	defer o.close()
	w := archive.NewWriter(s.out)
	w.Foreign = s.foreign
	s.reply(&Reply{Stat: &o.stat})
	if err := w.Add(ctx, o.dir, o.base, o.name()); err != nil {
		return err
	}
	return w.Close()
}

func (s *server) write(ctx context.Context) error {
	fd, err := archive.Open(unix.AT_FDCWD, rooted(s.job.Path), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return missing(s.job.Path, err)
	}
	defer unix.Close(fd)
	if s.foreign(fd) {
		return errdef.Forbidden("%s belongs to the kernel: nothing is copied there", s.job.Path)
	}
	err = archive.Extract(ctx, fd, s.in, archive.Extraction{
		KeepOwner: true, SameKind: s.job.SameKind, Owner: s.job.Owner, Weak: s.job.Weak,
	})
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, s.in) // what follows the end mark; whoever sends it must not be cut off
	s.reply(&Reply{})
	return nil
}

// export writes the root as it is below all that is mounted on it: a clone of the mount shows that.
func (s *server) export(ctx context.Context) error {
	root, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open the root file system: %w", err)
	}
	defer unix.Close(root)
	names, err := archive.Names(root)
	if err != nil {
		return err
	}
	s.reply(&Reply{})
	return s.tree(ctx, root, names)
}
