package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"hull/image/layer"
	"hull/ref"
	"hull/state"
)

// early unpacks the layers of an archive while it is read, before anybody knows of which images they are: that may
// stand at the archive's end.
//
//	archive  →  file (hashed on the way)  →  follower: decompress, hash, tar  →  files
//
// Reading is never held up by a layer, and two of them are unpacked at once. Nothing that is found here is believed:
// what a manifest and a configuration then say of a blob is compared with it. What could not be unpacked is unpacked
// again when an image needs it, and fails then with the words for it.
type early struct {
	in    *incoming
	ctx   context.Context
	stop  context.CancelCauseFunc
	slots chan struct{}
	wg    sync.WaitGroup

	mu   sync.Mutex               // protects the following
	made map[ref.Digest]*unpacked // by blob
}

// unpacked is a layer that is being unpacked, or was.
type unpacked struct {
	done   chan struct{} // closed when the rest is known
	dir    string
	diffID string
	res    layer.Result
	err    error
}

func (in *incoming) newEarly(ctx context.Context) *early {
	e := &early{in: in, slots: make(chan struct{}, unpackers), made: map[ref.Digest]*unpacked{}}
	e.ctx, e.stop = context.WithCancelCause(ctx)
	return e
}

// unpackers is how many layers are unpacked at once: a file system takes no more writers gladly.
const unpackers = 2

// close ends what is still at work.
func (e *early) close() {
	e.stop(errors.New("the archive is done with"))
	e.wg.Wait()
}

// errLower means that a layer cannot be unpacked without those below it.
type errLower struct{}

func (errLower) Error() string { return "the root of the layer is opaque" }

// errHere means that a blob is in the store: what it takes to have its layer is seen when an image needs it.
type errHere struct{}

func (errHere) Error() string { return "the blob is in the store" }

// file brings a file of the archive, and begins to unpack it if it is a layer. known is the digest that its name says.
func (e *early) file(r io.Reader, size int64, known ref.Digest, id string, progress func(Progress)) (spooled, error) {
	if known.Algorithm() == "sha256" && e.in.s.hasBlob(known) { // verified once; and what is here need not come again
		return e.compare(r, known)
	}
	head := make([]byte, min(512, size))
	if _, err := io.ReadFull(r, head); err != nil {
		return spooled{}, err
	}
	compression, isLayer := looksLikeLayer(head)
	if !isLayer {
		sp, err := spool(e.in.tempBlob(), io.MultiReader(bytes.NewReader(head), r))
		if err == nil {
			e.in.add(sp)
		}
		return sp, err
	}
	path := e.in.tempBlob()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return spooled{}, err
	}
	g := &ingest{f: f}
	g.more.L = &g.mu
	u := &unpacked{done: make(chan struct{})}
	written := make(chan struct{})
	defer close(written)
	ctx, cancel := context.WithCancelCause(e.ctx)
	e.wg.Go(func() {
		defer cancel(nil)
		defer func() {
			<-written // what is no layer is known to be none before all of it has come
			f.Close()
		}()
		defer close(u.done)
		e.unpack(ctx, u, &metered{r: &follower{g: g}, id: id, total: size, report: progress}, compression)
	})
	h := sha256.New()
	buf := make([]byte, 256<<10)
	var out state.WriteOut
	off, n := int64(0), copy(buf, head)
	for n > 0 && err == nil {
		h.Write(buf[:n])
		if _, err = f.WriteAt(buf[:n], off); err != nil {
			break
		}
		off += int64(n)
		out.Written(int(f.Fd()), off)
		g.arrived(int64(n))
		n, err = io.ReadFull(r, buf[:min(int64(len(buf)), size-off)])
	}
	if err != nil {
		g.end(err)
		return spooled{}, err
	}
	sp := spooled{path, ref.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), size}
	if compression == layer.Plain {
		u.diffID = string(sp.digest)
	}
	if e.in.s.hasBlob(sp.digest) { // an archive that names no digests shows it only now
		cancel(errHere{})
		g.end(nil)
		sp.path = e.in.s.blobPath(sp.digest)
		return sp, os.Remove(path)
	}
	// And its end: the sync of all has less to wait for.
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	g.end(nil)
	e.mu.Lock()
	if _, again := e.made[sp.digest]; !again {
		e.made[sp.digest] = u
	}
	e.mu.Unlock()
	e.in.add(sp)
	return sp, nil
}

// compare reads a file that is in the store.
func (e *early) compare(r io.Reader, known ref.Digest) (spooled, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, onlyReader{r}, make([]byte, 256<<10))
	return spooled{e.in.s.blobPath(known), ref.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), n}, err
}

// looksLikeLayer says whether a file that begins like this is a tar, perhaps compressed.
func looksLikeLayer(head []byte) (layer.Compression, bool) {
	c, err := layer.Detect(head)
	if err != nil || c == layer.Bzip2 {
		return c, false
	}
	return c, c != layer.Plain || len(head) == 512 && string(head[257:262]) == "ustar"
}

// unpack fills u.
func (e *early) unpack(ctx context.Context, u *unpacked, r io.Reader, c layer.Compression) {
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		u.err = context.Cause(ctx)
		return
	}
	defer func() { <-e.slots }()
	u.dir, u.res, u.err = e.in.unpackEarly(ctx, r, c)
	if c != layer.Plain {
		u.diffID = u.res.DiffID
	}
}

// unpackEarly unpacks a layer of which only the content is known.
func (in *incoming) unpackEarly(ctx context.Context, r io.Reader, c layer.Compression) (dir string, res layer.Result, err error) {
	tar, _, err := layer.Decompress(r)
	if err != nil {
		return "", res, err
	}
	defer tar.Close()
	dir, fsDir, err := in.newLayer("early-" + in.freshName())
	if err != nil {
		return "", res, err
	}
	// The digest of what is not compressed is that of the file, which is being computed.
	res, err = layer.Unpack(ctx, fsDir, tar, layer.Options{
		NoDigest: c == layer.Plain,
		Lower:    func() ([]string, error) { return nil, errLower{} },
	})
	if err != nil {
		return "", res, errors.Join(err, state.Remove(dir))
	}
	return dir, res, nil
}

// take gives the layer of blob d away, once, if it was unpacked and is what the configuration says.
func (e *early) take(ctx context.Context, d ref.Digest, diffID string) (dir string, res layer.Result, ok bool) {
	if e == nil {
		return "", res, false
	}
	e.mu.Lock()
	u := e.made[d]
	delete(e.made, d)
	e.mu.Unlock()
	if u == nil {
		return "", res, false
	}
	select {
	case <-u.done:
	case <-ctx.Done():
		return "", res, false
	}
	return u.dir, u.res, u.err == nil && u.diffID == diffID
}
