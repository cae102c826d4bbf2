package image

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// The directories of a store. blobs, oci-layout and index.json are an OCI image layout.
func (s *Store) blobsDir() string  { return filepath.Join(s.root, "blobs") }
func (s *Store) layersDir() string { return filepath.Join(s.root, "layers") }
func (s *Store) imagesDir() string { return filepath.Join(s.root, "images") }
func (s *Store) blobPath(d ref.Digest) string {
	return filepath.Join(s.root, "blobs", d.Algorithm(), d.Hex())
}
func (s *Store) layerPath(chain string) string {
	return filepath.Join(s.root, "layers", ref.Digest(chain).Hex())
}
func (s *Store) layerFS(chain string) string { return filepath.Join(s.layerPath(chain), "fs") }

// readBlob returns a whole small blob after comparing it with its digest: the disk may have changed it.
func (s *Store) readBlob(d ref.Digest, limit int64) ([]byte, error) {
	data, err := state.Read(s.blobPath(d), limit)
	if err != nil {
		return nil, err
	}
	if err := checkSum(d, data); err != nil {
		return nil, err
	}
	return data, nil
}

func checkSum(d ref.Digest, data []byte) error {
	h := newHash(d)
	h.Write(data)
	if got := hex.EncodeToString(h.Sum(nil)); got != d.Hex() {
		return errdef.As(errdef.ErrCorrupt, fmt.Errorf("blob %s is damaged: its content has the digest %s:%s", d, d.Algorithm(), got))
	}
	return nil
}

func newHash(d ref.Digest) hash.Hash {
	if d.Algorithm() == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// hasBlob says whether a blob is in the store; what is there under its name was verified before it got it.
func (s *Store) hasBlob(d ref.Digest) bool {
	_, err := os.Lstat(s.blobPath(d))
	return err == nil
}

// ociLayout is the file that tells an OCI image layout.
const ociLayout = `{"imageLayoutVersion":"1.0.0"}`

// prepare makes the directories of the store.
func (s *Store) prepare() error {
	for _, d := range []string{"blobs/sha256", "layers", "images", "refs", "refs.log"} {
		if err := os.MkdirAll(filepath.Join(s.root, d), 0o700); err != nil {
			return err
		}
	}
	layout := filepath.Join(s.root, "oci-layout")
	if _, err := os.Lstat(layout); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := s.writeTop("oci-layout", []byte(ociLayout))
	if errors.Is(err, fs.ErrNotExist) { // two at once share the temporary name: the other one was first, with the same
		_, err = os.Lstat(layout)
	}
	return err
}

// spooled is a file that is on its way to become a blob.
type spooled struct {
	path   string
	digest ref.Digest // sha256
	size   int64
}

// spool writes r to the new file path and computes its digest.
func spool(path string, r io.Reader) (sp spooled, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return spooled{}, err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	h := sha256.New()
	to := state.NewSparse(f) // a layer that is not compressed has the zeros of sparse files
	n, err := io.CopyBuffer(onlyWriter{io.MultiWriter(to, h)}, onlyReader{r}, make([]byte, 256<<10))
	if err == nil {
		err = to.Close()
	}
	if err != nil {
		return spooled{}, err
	}
	return spooled{path, ref.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), n}, nil
}

// onlyReader and onlyWriter hide what else a value can do, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }
