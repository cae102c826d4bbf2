package image

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
	"hull/state"
)

// Damage is something that Check found.
type Damage struct {
	Object   string // "blob sha256:...", "layer sha256:...", "image sha256:...", "name app:latest", "index"
	Problem  string // what is wrong, in words
	Cure     string // what to do, if it is not repaired
	Repaired bool
}

// CheckOptions are for Check. All are optional.
type CheckOptions struct {
	Repair bool
	// Fetch opens the blob d where it is known to be; nil, or an error, when nobody has it.
	Fetch func(ctx context.Context, d ref.Digest) (io.ReadCloser, error)
	// Busy says whether a running container is made of the layer.
	Busy func(chain string) bool
	// Progress is told what is looked at, and how far that is.
	Progress func(what string, done, total int)
}

// Check compares every blob with its digest, every record, manifest, configuration and reference with what it leads to, and
// every unpacked layer with its blob, by unpacking that once more beside it. Nothing is swept meanwhile. With Repair what
// is wrong is fetched, made or unpacked anew; what was there before is kept in the directory quarantine.
func (s *Store) Check(ctx context.Context, o CheckOptions) (_ []Damage, err error) {
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	in, err := s.receive(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	c := checker{s: s, in: in, o: &o, bad: map[ref.Digest]bool{}, layers: map[string]bool{}}
	for _, step := range []func(context.Context) error{c.blobs, c.records, c.references, c.images, c.index} {
		if err := step(ctx); err != nil {
			return c.found, err
		}
	}
	return c.found, nil
}

type checker struct {
	s      *Store
	in     *incoming
	o      *CheckOptions
	found  []Damage
	bad    map[ref.Digest]bool // blobs that are not to be relied on
	layers map[string]bool     // that were looked at
}

const (
	curePull   = "pull or load the image again"
	cureRepair = "hull system check --repair"
)

// report adds what was found. repair, if asked for, makes it good.
func (c *checker) report(object, problem, cure string, repair func() error) error {
	d := Damage{Object: object, Problem: problem, Cure: cure}
	if repair != nil && c.o.Repair {
		switch err := repair(); {
		case err == nil:
			d.Repaired, d.Cure = true, ""
		case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
			return err
		default:
			d.Cure = cure + " (" + err.Error() + ")"
		}
	}
	c.found = append(c.found, d)
	return nil
}

// quarantine puts path aside, so that nothing takes it for what it should be.
func (s *Store) quarantine(path string) error {
	dir := filepath.Join(s.root, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	base := filepath.Base(path)
	return os.Rename(path, filepath.Join(dir, base[:min(len(base), 100)]+"-"+strings.TrimPrefix(state.TempName(), state.TempPrefix)))
}

// blobs compares each blob with its name.
func (c *checker) blobs(ctx context.Context) error {
	for _, algorithm := range []string{"sha256", "sha512"} {
		dir := filepath.Join(c.s.blobsDir(), algorithm)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for i, e := range entries {
			c.o.Progress("blobs", i, len(entries))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			d, err := ref.ParseDigest(algorithm + ":" + e.Name())
			if err != nil {
				err = c.report("file "+filepath.Join(dir, e.Name()), "its name is no digest", "remove it", func() error { return c.s.quarantine(filepath.Join(dir, e.Name())) })
			} else {
				err = c.blob(ctx, d)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) blob(ctx context.Context, d ref.Digest) error {
	path := c.s.blobPath(d)
	problem, err := blobProblem(path, d)
	if err != nil || problem == "" {
		return err
	}
	if problem == openToOthers {
		return c.report("blob "+string(d), problem, "chmod 600 "+path, func() error { return os.Chmod(path, 0o600) })
	}
	c.bad[d] = true
	return c.report("blob "+string(d), problem, cureRepair+", or "+curePull, func() error {
		if err := c.s.quarantine(path); err != nil {
			return err
		}
		return c.fetch(ctx, d)
	})
}

const openToOthers = "others than its owner may write to it"

// blobProblem says what is wrong with a blob; "" is nothing.
func blobProblem(path string, d ref.Digest) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ELOOP {
		return "it is a symbolic link, not a file", nil
	}
	if err != nil {
		return "it cannot be opened: " + err.Error(), nil
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "it is not a regular file", nil
	}
	h := newHash(d)
	if _, err := io.CopyBuffer(h, onlyReader{f}, make([]byte, 256<<10)); err != nil {
		return "it cannot be read: " + err.Error(), nil
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.Hex() {
		return fmt.Sprintf("its %d bytes have the digest %s:%s", st.Size(), d.Algorithm(), got), nil
	}
	if st.Mode().Perm()&0o022 != 0 {
		return openToOthers, nil
	}
	return "", nil
}

// fetch brings the blob d from where it came, and puts it into its place.
func (c *checker) fetch(ctx context.Context, d ref.Digest) error {
	if c.o.Fetch == nil {
		return errors.New("nobody is known to have it")
	}
	r, err := c.o.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	tmp := c.in.tempBlob()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	h := newHash(d)
	_, err = io.CopyBuffer(onlyWriter{io.MultiWriter(f, h)}, onlyReader{r}, make([]byte, 256<<10))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.Hex() {
		return fmt.Errorf("what came has the digest %s", got)
	}
	if err := os.Rename(tmp, c.s.blobPath(d)); err != nil {
		return err
	}
	delete(c.bad, d)
	return state.SyncDir(filepath.Dir(c.s.blobPath(d)))
}

// records looks at each image that is listed, as far as images/ goes.
func (c *checker) records(ctx context.Context) error {
	entries, err := os.ReadDir(c.s.imagesDir())
	if err != nil {
		return err
	}
	for i, e := range entries {
		c.o.Progress("images", i, len(entries))
		id := "sha256:" + e.Name()
		path := filepath.Join(c.s.imagesDir(), e.Name())
		if strings.HasPrefix(e.Name(), state.TempPrefix) {
			continue // the next sweep removes it
		}
		if _, err := ref.ParseDigest(id); err != nil {
			if err := c.report("file "+path, "its name is no image id", "remove it", func() error { return c.s.quarantine(path) }); err != nil {
				return err
			}
			continue
		}
		rec, err := c.s.readRecord(id)
		if errors.Is(err, errdef.ErrNotFound) {
			continue // removed meanwhile
		}
		problem := ""
		if err != nil {
			problem = "its record is damaged"
		} else if m, _, err := c.s.manifestOf(rec.Manifest); err == nil && string(m.Config.Digest) != id {
			problem = "its record names the manifest of another image, " + short(string(m.Config.Digest))
		}
		if problem == "" {
			continue
		}
		if err := c.report("image "+id, problem, cureRepair+", or hull rmi "+short(id), func() error { return c.rebuild(ctx, id) }); err != nil {
			return err
		}
	}
	return nil
}

// rebuild writes the record of the image id anew, from the manifest that leads to it.
func (c *checker) rebuild(ctx context.Context, id string) error {
	blobs, err := os.ReadDir(filepath.Join(c.s.blobsDir(), "sha256"))
	if err != nil {
		return err
	}
	for _, e := range blobs {
		d := ref.Digest("sha256:" + e.Name())
		if fi, err := e.Info(); err != nil || fi.Size() > maxManifest || c.bad[d] {
			continue
		}
		data, err := c.s.readBlob(d, maxManifest)
		if err != nil || !strings.Contains(string(data), id) {
			continue
		}
		m, _, err := parseTarget(data, "")
		if err != nil || m == nil || string(m.Config.Digest) != id {
			continue
		}
		img, err := c.s.image(m, d)
		if err != nil && !errors.Is(err, errdef.ErrCorrupt) {
			return err
		}
		if img == nil {
			data, err := c.s.readBlob(ref.Digest(id), maxConfig)
			if err != nil {
				return err
			}
			conf, err := parseConfig(data)
			if err != nil {
				return err
			}
			img = &Image{Config: *conf}
			if conf.Created != nil {
				img.Created = *conf.Created
			}
		}
		rec := record{Manifest: d, Created: img.Created, Labels: img.Config.Run.Labels}
		for _, chain := range chainIDs(img.Config.RootFS.DiffIDs) {
			if l, err := c.s.readLayer(chain); err == nil {
				rec.Size += l.Size
			}
		}
		text, err := json.Marshal(rec)
		if err != nil {
			return err
		}
		return c.s.update(ctx, func() error {
			if _, err := os.Lstat(c.s.recordPath(id)); err == nil {
				if err := c.s.quarantine(c.s.recordPath(id)); err != nil {
					return err
				}
			}
			return state.WriteDurable(c.s.recordPath(id), text)
		})
	}
	return errors.New("no manifest leads to it")
}

// references looks at what each name names.
func (c *checker) references(ctx context.Context) error {
	top := filepath.Join(c.s.root, "refs")
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		rel := strings.TrimPrefix(path, top+"/")
		if rel == filepath.Base(c.s.listingPath()) || strings.HasPrefix(d.Name(), state.TempPrefix) {
			return nil
		}
		r, ok := refOfFile(rel)
		if !ok {
			return c.report("file "+path, "it is no name of an image", "remove it", func() error { return c.s.quarantine(path) })
		}
		target, err := c.s.readRef(r)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err != nil:
			return c.report("name "+r.Familiar(), "what it names cannot be read", cureRepair+", or hull rmi -f "+r.Familiar(), func() error { return c.rename(ctx, r) })
		case !c.s.hasBlob(target):
			return c.report("name "+r.Familiar(), "it names "+string(target)+", which is not here", curePull+", or hull rmi "+r.Familiar(),
				func() error { return c.fetch(ctx, target) })
		}
		return nil
	})
}

// rename lets the reference name what its log says last.
func (c *checker) rename(ctx context.Context, r ref.Ref) error {
	log, err := c.s.readLog(r)
	if err != nil {
		return err
	}
	if len(log) == 0 || log[len(log)-1].New == "" || !c.s.hasBlob(ref.Digest(log[len(log)-1].New)) {
		return errors.New("its log does not say what it named")
	}
	target := ref.Digest(log[len(log)-1].New)
	return c.s.update(ctx, func() error {
		if err := c.s.quarantine(c.s.refPath(r)); err != nil {
			return err
		}
		return state.WriteDurable(c.s.refPath(r), []byte(target+"\n"))
	})
}

// images follows each image from its manifest to its layers.
func (c *checker) images(ctx context.Context) error {
	records := c.s.records()
	for i, id := range slices.Sorted(maps.Keys(records)) {
		c.o.Progress("layers of images", i, len(records))
		if records[id].Manifest == "" {
			continue // said already
		}
		if err := c.image(ctx, id, records[id].Manifest); err != nil {
			return err
		}
	}
	return nil
}

// need reports that the image id lacks the blob d, unless it is there.
func (c *checker) need(ctx context.Context, id string, d ref.Digest, what string) (here bool, err error) {
	if c.s.hasBlob(d) {
		return !c.bad[d], nil
	}
	if !c.bad[d] {
		err = c.report("image "+id, "its "+what+" "+string(d)+" is missing", cureRepair+", or "+curePull, func() error { return c.fetch(ctx, d) })
	}
	return c.s.hasBlob(d), err
}

func (c *checker) image(ctx context.Context, id string, target ref.Digest) error {
	if ok, err := c.need(ctx, id, target, "manifest"); !ok || err != nil {
		return err
	}
	m, _, err := c.s.manifestOf(target)
	if err != nil {
		return c.report("image "+id, "its manifest cannot be understood: "+err.Error(), curePull, nil)
	}
	if ok, err := c.need(ctx, id, m.Config.Digest, "configuration"); !ok || err != nil {
		return err
	}
	data, err := c.s.readBlob(m.Config.Digest, maxConfig)
	if err != nil {
		return c.report("image "+id, err.Error(), curePull, nil)
	}
	conf, err := parseConfig(data)
	if err != nil || len(conf.RootFS.DiffIDs) != len(m.Layers) {
		return c.report("image "+id, "its configuration does not fit its manifest", curePull, nil)
	}
	chain := chainIDs(conf.RootFS.DiffIDs)
	for i, d := range m.Layers {
		ok, err := c.need(ctx, id, d.Digest, "layer")
		if err != nil {
			return err
		}
		if c.layers[chain[i]] {
			continue
		}
		c.layers[chain[i]] = true
		if !ok {
			if _, err := os.Lstat(c.s.layerFS(chain[i])); err != nil {
				err = c.report("layer "+chain[i], "it is missing, and so is its blob", curePull, nil)
				if err != nil {
					return err
				}
			}
			continue // without its blob there is nothing to compare it with
		}
		if err := c.layer(ctx, i, d, conf.RootFS.DiffIDs[i], chain); err != nil {
			return err
		}
	}
	return nil
}

// layer unpacks a blob beside the layer that should be the same.
func (c *checker) layer(ctx context.Context, i int, d descriptor, diffID string, chain []string) (err error) {
	object := "layer " + chain[i]
	f, err := os.Open(c.s.blobPath(d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	tar, _, err := layer.Decompress(f)
	if err != nil {
		return err
	}
	defer tar.Close()
	dir, fsDir, err := c.in.newLayer("check-" + strconv.Itoa(len(c.layers)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Remove(dir)) }()
	lower := func() ([]string, error) {
		var dirs []string
		for _, below := range chain[:i] {
			dirs = append(dirs, c.s.layerFS(below))
		}
		return dirs, nil
	}
	res, err := layer.Unpack(ctx, fsDir, tar, layer.Options{Lower: lower})
	if err != nil {
		return err
	}
	if res.DiffID != diffID {
		return c.report(object, "its blob holds the content "+res.DiffID+", its image wants "+diffID, curePull, nil)
	}
	parent := ""
	if i > 0 {
		parent = chain[i-1]
	}
	want := layerRecord{DiffID: diffID, Parent: parent, Size: res.Size}
	var problem string
	differences, err := layer.Differ(ctx, fsDir, c.s.layerFS(chain[i]), 5)
	if err != nil {
		return err
	}
	if len(differences) > 0 {
		problem = strings.Join(differences, "; ")
	} else if have, err := c.s.readLayer(chain[i]); err != nil || have != want {
		problem = "its record is damaged"
	} else {
		return nil
	}
	if c.o.Busy != nil && c.o.Busy(chain[i]) {
		return c.report(object, problem, "stop the containers that are made of it, then "+cureRepair, nil)
	}
	return c.report(object, problem, cureRepair, func() error {
		data, err := json.Marshal(want)
		if err != nil {
			return err
		}
		if err := state.Write(filepath.Join(dir, layerFile), data); err != nil {
			return err
		}
		if err := state.SyncTree(dir); err != nil {
			return err
		}
		path := c.s.layerPath(chain[i])
		// Whole at every moment: what was there changes places with what should be.
		err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
		if err == unix.ENOENT {
			err = os.Rename(dir, path)
		} else if err == nil {
			err = c.s.quarantine(dir)
		}
		if err != nil {
			return err
		}
		return state.SyncDir(c.s.layersDir())
	})
}

// index compares what is only there for other tools.
func (c *checker) index(ctx context.Context) error {
	layout := filepath.Join(c.s.root, "oci-layout")
	if data, err := state.Read(layout, 4096); err != nil || string(data) != `{"imageLayoutVersion":"1.0.0"}` {
		if err := c.report("oci-layout", "it is damaged", cureRepair, func() error { return c.s.writeTop("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)) }); err != nil {
			return err
		}
	}
	path := filepath.Join(c.s.root, "index.json")
	data, err := state.Read(path, 256<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever named
	}
	if err == nil {
		_, err = parseIndex(data)
	}
	if err == nil {
		return nil
	}
	return c.report("index.json", "it cannot be understood: "+err.Error(), cureRepair, func() error {
		return c.s.update(ctx, func() error { return nil })
	})
}
