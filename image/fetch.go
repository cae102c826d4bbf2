package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// Opener opens the repository name ("docker.io/library/nginx") for blobs that are not kept here; done ends it.
type Opener func(ctx context.Context, name string) (o Origin, done func(), err error)

// OpenBlob opens the blob d, which has size bytes by the manifest that names it: in the store or, where it was dropped,
// fetched from one of the repositories that are known to hold it. Nothing is read from the result before all of it has
// come and has the digest d. What came waits, as that of a pull does, for whoever wants it next, until a sweep finds it
// a day old, or DropFetched. Of several who want a blob at once, in whatever processes, one fetches it, and whoever was
// killed at it has left the bytes to go on from.
//
// The caller holds a Lease and closes the file. progress, which may be nil, is told how many bytes have come. The error
// is of the kind ErrUnavailable when nobody has the blob any more.
func (s *Store) OpenBlob(ctx context.Context, d ref.Digest, size int64, from Opener, progress func(int64)) (*os.File, error) {
	f, err := os.Open(s.blobPath(d))
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	g, err := s.ingest(ctx, descriptor{Digest: d, Size: size})
	if err != nil {
		return nil, err
	}
	defer g.close()
	if f, err := os.Open(s.blobPath(d)); !errors.Is(err, fs.ErrNotExist) { // a pull has brought it while we waited
		return f, err
	}
	if progress == nil {
		progress = func(int64) {}
	}
	if err := g.refetch(ctx, from, progress); err != nil {
		return nil, err
	}
	return os.Open(filepath.Join(g.dir, "data"))
}

// bringBack is OpenBlob for a blob that is going to be asked for again: it is in the store afterwards.
func (s *Store) bringBack(ctx context.Context, d ref.Digest, size int64, from Opener) (f *os.File, err error) {
	lease, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	defer lease.Unlock()
	if f, err = s.OpenBlob(ctx, d, size, from, nil); err != nil || f.Name() == s.blobPath(d) {
		return f, err
	}
	path := s.blobPath(d)
	err = f.Sync()
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if errors.Is(err, fs.ErrExist) { // somebody else has brought it
		err = nil
	}
	if err == nil {
		err = state.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.DropFetched(d)
	return f, nil
}

// DropFetched gives back the space of a blob that OpenBlob has fetched. Who has it open reads on.
func (s *Store) DropFetched(d ref.Digest) { s.dropIngest(d) }

// refetch brings the blob from one of its origins after the other.
func (g *ingest) refetch(ctx context.Context, from Opener, progress func(int64)) error {
	origins := g.s.Origins(g.d.Digest)
	if len(origins) == 0 {
		return errdef.As(errdef.ErrUnavailable, fmt.Errorf("the blob %s is not kept here, and it is not known where it came from: pull or load the image again", g.d.Digest))
	}
	if from == nil {
		return errdef.As(errdef.ErrUnavailable, fmt.Errorf("the blob %s is not kept here: pull the image again", g.d.Digest))
	}
	var errs []error
	for _, name := range origins {
		err := g.refetchFrom(ctx, from, name, progress)
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return errdef.As(errdef.ErrUnavailable, &goneError{g.d.Digest, origins, errors.Join(errs...)})
}

// refetchFrom brings it from the repository name. What an earlier try has left may be damaged, and of several mirrors one
// may be: then once more from the beginning.
func (g *ingest) refetchFrom(ctx context.Context, from Opener, name string, progress func(int64)) error {
	o, done, err := from(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	err = g.bring(ctx, o, progress)
	var wrong *wrongContent
	if !errors.As(err, &wrong) {
		return err
	}
	for range 2 {
		if !wrong.kept {
			o.Reject(g.d.Digest)
		}
		if err := errors.Join(g.f.Close(), g.open()); err != nil {
			return err
		}
		if err = g.bring(ctx, o, progress); !errors.As(err, &wrong) {
			return err
		}
	}
	return errors.Join(err, g.f.Close(), g.open()) // for the next origin
}

// goneError is that of a blob which was dropped and cannot be fetched any more.
type goneError struct {
	blob    ref.Digest
	origins []string
	err     error
}

func (e *goneError) Error() string {
	name := e.origins[0]
	if r, err := ref.Parse(name); err == nil {
		name = r.Registry
	}
	return fmt.Sprintf("the blob %s is not kept here and cannot be fetched again: %s: see \"hull registry test %s\", log in to %s, or load or pull an image with this layer from where there is one",
		e.blob, strings.ReplaceAll(e.err.Error(), "\n", "; "), e.origins[0], name)
}

func (e *goneError) Unwrap() error { return e.err }
