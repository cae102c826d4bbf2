package image

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// replaceWrong fetches the blobs that are not what their names say. Manifests come first: they say how large the others
// are, and nobody is allowed to send more.
func (c *checker) replaceWrong(ctx context.Context) error {
	if !c.o.Repair || len(c.wrong) == 0 {
		return nil
	}
	targets := c.targets()
	var first, then []int
	for i, d := range c.found {
		if blob, ok := c.wrongBlob(d); ok && targets[blob] {
			first = append(first, i)
		} else if ok {
			then = append(then, i)
		}
	}
	for _, i := range slices.Concat(first, then) {
		d := &c.found[i]
		blob, _ := c.wrongBlob(*d)
		switch err := c.replace(ctx, blob); {
		case err == nil:
			d.Repaired, d.Cure = true, ""
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			d.failed(err)
		}
	}
	return nil
}

// wrongBlob is the blob that a finding says is wrong.
func (c *checker) wrongBlob(d Damage) (ref.Digest, bool) {
	for blob := range c.wrong {
		if d.Object == "blob "+string(blob) {
			return blob, true
		}
	}
	return "", false
}

// replace brings the blob d anew. What is in its place is not d, and does not stay there, even if nobody has d: then
// whoever pulls or loads the image brings it.
func (c *checker) replace(ctx context.Context, d ref.Digest) error {
	tmp, err := c.bring(ctx, d)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return errors.Join(err, c.s.quarantine(c.s.blobPath(d)))
	}
	return c.put(tmp, d)
}

// fetch brings the blob d, which is missing.
func (c *checker) fetch(ctx context.Context, d ref.Digest) error {
	tmp, err := c.bring(ctx, d)
	if err != nil {
		return err
	}
	return c.put(tmp, d)
}

func (c *checker) put(tmp string, d ref.Digest) error {
	if err := c.s.exchange(tmp, c.s.blobPath(d)); err != nil {
		return err
	}
	delete(c.wrong, d)
	c.sizes = nil // it may be a manifest, and say something of others
	return nil
}

// bring fetches the blob d into a file of ours, verified and synced, from the first place that really has it.
func (c *checker) bring(ctx context.Context, d ref.Digest) (string, error) {
	if c.o.Fetch == nil {
		return "", errors.New("nobody is known to have it")
	}
	limit, err := c.sizeOf(d)
	if err != nil {
		return "", err
	}
	var errs []error
	for r, err := range c.o.Fetch(ctx, d) {
		var tmp string
		if err == nil {
			tmp, err = c.receive(r, d, limit)
		}
		if err == nil {
			return tmp, nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return "", errors.New("it is not known where it came from")
	}
	return "", errors.Join(errs...)
}

// receive writes what r sends into a file, and closes r. More than limit bytes it does not take.
func (c *checker) receive(r io.ReadCloser, d ref.Digest, limit int64) (tmp string, err error) {
	defer r.Close()
	tmp = c.in.tempBlob()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(tmp)
		}
	}()
	h := newHash(d)
	n, err := io.CopyBuffer(onlyWriter{io.MultiWriter(f, h)}, onlyReader{io.LimitReader(r, limit+1)}, make([]byte, 256<<10))
	switch {
	case err != nil:
		return tmp, err
	case n > limit:
		return tmp, errdef.Invalid("more came than the %d bytes it has", limit)
	case hex.EncodeToString(h.Sum(nil)) != d.Hex():
		return tmp, errdef.Invalid("what came has the digest %s:%s", d.Algorithm(), hex.EncodeToString(h.Sum(nil)))
	}
	return tmp, f.Sync()
}

// targets are the digests that references and records name: of manifests and indexes.
func (c *checker) targets() map[ref.Digest]bool {
	all := map[ref.Digest]bool{}
	for _, d := range c.s.refs() {
		all[d] = true
	}
	for _, rec := range c.s.records() {
		all[rec.Manifest] = true
	}
	return all
}

// sizeOf is how many bytes the blob d may have.
func (c *checker) sizeOf(d ref.Digest) (int64, error) {
	if c.sizes == nil {
		if err := c.survey(); err != nil {
			return 0, err
		}
	}
	n, ok := c.sizes[d]
	if !ok {
		return 0, fmt.Errorf("no manifest here says how large it is")
	}
	return n, nil
}

// survey reads what the manifests and indexes in the store say of the sizes of blobs.
func (c *checker) survey() error {
	dir := filepath.Join(c.s.blobsDir(), "sha256")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	c.sizes = map[ref.Digest]int64{}
	for d := range c.targets() {
		c.sizes[d] = maxManifest
	}
	for _, e := range entries {
		d := ref.Digest("sha256:" + e.Name())
		if fi, err := e.Info(); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxManifest || c.wrong[d] || c.doubted[d] {
			continue
		}
		data, err := state.Read(filepath.Join(dir, e.Name()), maxManifest)
		if err != nil || !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
			continue
		}
		m, x, err := parseTarget(data, "")
		switch {
		case err != nil: // a configuration, or anything else
		case m != nil:
			for _, d := range append(m.Layers[:len(m.Layers):len(m.Layers)], m.Config) {
				c.sizes[d.Digest] = max(c.sizes[d.Digest], d.Size)
			}
		default:
			for _, d := range x.Manifests {
				c.sizes[d.Digest] = max(c.sizes[d.Digest], d.Size)
			}
		}
	}
	return nil
}
