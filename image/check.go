package image

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
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
	// Unchecked says that nobody knows whether it is damaged: it could not be looked at, and was left alone.
	Unchecked bool
}

// CheckOptions are for Check. All are optional.
type CheckOptions struct {
	Repair bool
	// Fetch opens the blob d at one place after the other that is known to have it, or says why it is not to be had there.
	Fetch func(ctx context.Context, d ref.Digest) iter.Seq2[io.ReadCloser, error]
	// Busy says whether a running container is made of the layer.
	Busy func(chain string) (bool, error)
	// Progress is told, a few times a second, what is looked at (ID) and how many bytes were read of those there are to read.
	// It is called by several goroutines, but never by two at once.
	Progress func(Progress)
}

// Check compares every blob with its digest, every record, manifest, configuration and reference with what it leads to, and
// every unpacked layer with its blob, by unpacking that once more beside it. Nothing is swept meanwhile. With Repair what
// is wrong is fetched, made or unpacked anew; what was there before is kept in the directory quarantine, and one process
// at a time does so.
//
// Damage is only what is proven: another digest, size or content, or a file that is not there. What cannot be read at the
// moment is Unchecked, and the rest is looked at all the same. The error is that of ctx, or of a store that cannot be
// used at all.
func (s *Store) Check(ctx context.Context, o CheckOptions) (_ []Damage, err error) {
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	in, err := s.receive(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if o.Repair {
		l, err := s.lockQuarantine()
		if err != nil {
			return nil, err
		}
		defer l.Unlock()
	}
	c := checker{s: s, in: in, o: &o, wrong: map[ref.Digest]bool{}, doubted: map[ref.Digest]bool{}, layers: map[string]bool{}}
	for _, step := range []func(context.Context) error{c.blobs, c.replaceWrong, c.records, c.references, c.logs, c.images, c.index} {
		if err := step(ctx); err != nil {
			return c.found, err
		}
		if ctx.Err() != nil {
			return c.found, context.Cause(ctx)
		}
	}
	return c.found, nil
}

type checker struct {
	s       *Store
	in      *incoming
	o       *CheckOptions
	found   []Damage
	wrong   map[ref.Digest]bool // blobs that are not what they should be
	doubted map[ref.Digest]bool // blobs that could not be read
	layers  map[string]bool     // that were looked at
	sizes   map[ref.Digest]int64
	gauge   gauge
}

const (
	curePull   = "pull or load the image again"
	cureRepair = "hull system check --repair"
	cureAgain  = "hull system check, again"
)

// report adds what was found. repair, if asked for, makes it good. The error is that of ctx.
func (c *checker) report(ctx context.Context, object, problem, cure string, repair func() error) error {
	d := Damage{Object: object, Problem: problem, Cure: cure}
	if repair != nil && c.o.Repair {
		switch err := repair(); {
		case err == nil:
			d.Repaired, d.Cure = true, ""
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			d.failed(err)
		}
	}
	c.found = append(c.found, d)
	return nil
}

// failed says of a repair that it did not go. It is no advice any more, where there is another.
func (d *Damage) failed(err error) {
	if other, ok := strings.CutPrefix(d.Cure, cureRepair+", or "); ok {
		d.Cure = other
	}
	d.Cure += " (" + inLine(err) + ")"
}

// doubt adds what could not be looked at. The error is that of ctx.
func (c *checker) doubt(ctx context.Context, object string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.found = append(c.found, Damage{Object: object, Problem: "it could not be checked: " + inLine(err), Cure: cureAgain, Unchecked: true})
	return nil
}

// inLine is an error, or several, as a part of a sentence.
func inLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// passing says that an error is one of the machine or of the moment, such as no file descriptors left or a disk that does not
// answer: it proves nothing about what was to be read.
func passing(err error) bool {
	var errno unix.Errno
	if errors.As(err, &errno) { // the first: what follows it may follow from it
		return !absent(errno)
	}
	for _, kind := range []error{errdef.ErrInvalid, errdef.ErrCorrupt, errdef.ErrNotFound} {
		if errors.Is(err, kind) {
			return false
		}
	}
	return true
}

// absent says that under the name there is clearly nothing, or no file.
func absent(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lockQuarantine makes the directory quarantine and takes its lock: of two who repair one thing, the second would put aside
// what the first has made good.
func (s *Store) lockQuarantine() (*state.Locked, error) {
	if err := os.MkdirAll(s.quarantineDir(), 0o700); err != nil {
		return nil, err
	}
	l, ok, err := state.TryLock(s.quarantineDir())
	if err == nil && !ok {
		err = errdef.Conflict("the store is being repaired by another hull system check --repair: wait for it to end")
	}
	return l, err
}

func (s *Store) quarantineDir() string { return filepath.Join(s.root, "quarantine") }

// quarantine puts path aside, so that nothing takes it for what it should be.
func (s *Store) quarantine(path string) error {
	base := filepath.Base(path)
	return os.Rename(path, filepath.Join(s.quarantineDir(), base[:min(len(base), 100)]+"-"+strings.TrimPrefix(state.TempName(), state.TempPrefix)))
}

// exchange lets tmp, which is what should be there, take the place of path, which is kept in quarantine. At every moment
// the one or the other is there as a whole.
func (s *Store) exchange(tmp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	switch err {
	case nil:
		err = s.quarantine(tmp)
	case unix.ENOENT:
		err = os.Rename(tmp, path)
	case unix.EINVAL: // a file system that cannot
		if err = s.quarantine(path); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		return err
	}
	return state.SyncDir(filepath.Dir(path))
}

// blobs compares each blob with its name.
func (c *checker) blobs(ctx context.Context) error {
	type file struct {
		d    ref.Digest
		size int64
	}
	var all []file
	c.gauge = gauge{tell: c.o.Progress, action: "Checking blobs"}
	for _, algorithm := range []string{"sha256", "sha512"} {
		dir := filepath.Join(c.s.blobsDir(), algorithm)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			if err := c.doubt(ctx, "blobs", err); err != nil {
				return err
			}
		}
		for _, e := range entries {
			d, err := ref.ParseDigest(algorithm + ":" + e.Name())
			if err != nil {
				path := filepath.Join(dir, e.Name())
				if err := c.report(ctx, "file "+path, "its name is no digest", "remove it", func() error { return c.s.quarantine(path) }); err != nil {
					return err
				}
				continue
			}
			var size int64
			if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
				size = fi.Size()
			}
			all = append(all, file{d, size})
			c.gauge.total += size
		}
	}
	for _, f := range all {
		c.gauge.next("blob "+string(f.d), f.size)
		if err := c.blob(ctx, f.d); err != nil {
			return err
		}
	}
	c.gauge.end()
	return nil
}

func (c *checker) blob(ctx context.Context, d ref.Digest) error {
	path := c.s.blobPath(d)
	problem, err := c.blobProblem(ctx, path, d)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // removed meanwhile, and missed below if something needs it
	case err != nil:
		c.doubted[d] = true
		return c.doubt(ctx, "blob "+string(d), err)
	case problem == openToOthers:
		return c.report(ctx, "blob "+string(d), problem, "chmod 600 "+path, func() error { return os.Chmod(path, 0o600) })
	case problem != "":
		c.wrong[d] = true
		c.found = append(c.found, Damage{Object: "blob " + string(d), Problem: problem, Cure: cureRepair + ", or " + curePull})
	}
	return nil
}

const openToOthers = "others than its owner may write to it"

// blobProblem says what is wrong with a blob; "" is nothing. An error is no damage.
func (c *checker) blobProblem(ctx context.Context, path string, d ref.Digest) (string, error) {
	fd, err := openAgain(path)
	if err == unix.ELOOP {
		return "it is a symbolic link, not a file", nil
	}
	if err == unix.ENXIO { // a socket
		return "it is not a regular file", nil
	}
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
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
	if _, err := io.CopyBuffer(h, c.gauge.reader(ctx, f), make([]byte, 256<<10)); err != nil {
		return "", err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.Hex() {
		return fmt.Sprintf("its %d bytes have the digest %s:%s", st.Size(), d.Algorithm(), got), nil
	}
	if st.Mode().Perm()&0o022 != 0 {
		return openToOthers, nil
	}
	return "", nil
}

// openAgain opens a file for reading, again after a signal.
func openAgain(path string) (fd int, err error) {
	for {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// records looks at each image that is listed, as far as images/ goes.
func (c *checker) records(ctx context.Context) error {
	entries, err := os.ReadDir(c.s.imagesDir())
	if err != nil {
		return c.doubt(ctx, "images", err)
	}
	for _, e := range entries {
		id := "sha256:" + e.Name()
		path := filepath.Join(c.s.imagesDir(), e.Name())
		if strings.HasPrefix(e.Name(), state.TempPrefix) {
			continue // the next sweep removes it
		}
		if _, err := ref.ParseDigest(id); err != nil {
			if err := c.report(ctx, "file "+path, "its name is no image id", "remove it", func() error { return c.s.quarantine(path) }); err != nil {
				return err
			}
			continue
		}
		if err := c.record(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) record(ctx context.Context, id string) error {
	problem, err := c.recordProblem(id)
	if err != nil {
		return c.doubt(ctx, "image "+id, err)
	}
	if problem == "" {
		return nil
	}
	return c.report(ctx, "image "+id, problem, cureRepair+", or hull rmi "+short(id), func() error { return c.rebuild(ctx, id) })
}

// recordProblem says what is wrong with the record of the image id; "" is nothing, also when it was removed meanwhile.
func (c *checker) recordProblem(id string) (string, error) {
	rec, err := c.s.readRecord(id)
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return "", nil
	case err != nil && passing(err):
		return "", err
	case err != nil:
		return "its record is damaged", nil
	}
	if m, _, err := c.s.manifestOf(rec.Manifest); err == nil && string(m.Config.Digest) != id {
		return "its record names the manifest of another image, " + short(string(m.Config.Digest)), nil
	}
	return "", nil // what is wrong with the manifest itself is found with the images
}

// rebuild writes the record of the image id anew, from the manifest that leads to it.
func (c *checker) rebuild(ctx context.Context, id string) error {
	blobs, err := os.ReadDir(filepath.Join(c.s.blobsDir(), "sha256"))
	if err != nil {
		return err
	}
	for _, e := range blobs {
		d := ref.Digest("sha256:" + e.Name())
		if fi, err := e.Info(); err != nil || fi.Size() > maxManifest || c.wrong[d] || c.doubted[d] {
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
		if here, err := c.has(ref.Digest(id)); err == nil && !here {
			if err := c.fetch(ctx, ref.Digest(id)); err != nil {
				return err
			}
		}
		text, err := c.newRecord(d, id)
		if err != nil {
			return err
		}
		return c.s.update(ctx, func() error {
			// Somebody may have loaded it again, or removed it.
			if problem, err := c.recordProblem(id); err != nil || problem == "" {
				return err
			}
			tmp := c.in.tempBlob()
			if err := state.WriteDurable(tmp, text); err != nil {
				return err
			}
			return c.s.exchange(tmp, c.s.recordPath(id))
		})
	}
	return errors.New("no manifest leads to it")
}

// newRecord is the record of the image id, which the manifest leads to.
func (c *checker) newRecord(manifest ref.Digest, id string) ([]byte, error) {
	data, err := c.s.readBlob(ref.Digest(id), maxConfig)
	if err != nil {
		return nil, err
	}
	conf, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	rec := record{Manifest: manifest, Labels: conf.Run.Labels}
	if conf.Created != nil {
		rec.Created = *conf.Created
	}
	for _, chain := range chainIDs(conf.RootFS.DiffIDs) {
		if l, err := c.s.readLayer(chain); err == nil {
			rec.Size += l.Size
		}
	}
	return json.Marshal(rec)
}

// references looks at what each name names.
func (c *checker) references(ctx context.Context) error {
	top := filepath.Join(c.s.root, "refs")
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return c.doubt(ctx, "names below "+path, err)
		}
		rel := strings.TrimPrefix(path, top+"/")
		if d.IsDir() || rel == filepath.Base(c.s.listingPath()) || strings.HasPrefix(d.Name(), state.TempPrefix) {
			return nil
		}
		r, ok := refOfFile(rel)
		if !ok {
			return c.report(ctx, "file "+path, "it is no name of an image", "remove it", func() error { return c.s.quarantine(path) })
		}
		return c.reference(ctx, r)
	})
}

func (c *checker) reference(ctx context.Context, r ref.Ref) error {
	object := "name " + r.Familiar()
	target, err := c.s.readRef(r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil && passing(err) {
		return c.doubt(ctx, object, err)
	}
	if err != nil {
		return c.report(ctx, object, "what it names cannot be read", cureRepair+", or hull rmi -f "+r.Familiar(), func() error { return c.rename(ctx, r) })
	}
	here, err := c.has(target)
	switch {
	case err != nil:
		return c.doubt(ctx, object, err)
	case !here:
		return c.report(ctx, object, "it names "+string(target)+", which is not here", curePull+", or hull rmi "+r.Familiar(),
			func() error { return c.fetch(ctx, target) })
	}
	return nil
}

// has says whether the blob d is in the store. An error means that nobody knows.
func (c *checker) has(d ref.Digest) (bool, error) {
	_, err := os.Lstat(c.s.blobPath(d))
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// rename lets the reference name what its log says last.
func (c *checker) rename(ctx context.Context, r ref.Ref) error {
	return c.s.update(ctx, func() error {
		// Only now: somebody may have given it to another image, or taken it away.
		if _, err := c.s.readRef(r); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		log, err := c.s.readLog(r)
		if err != nil {
			return err
		}
		if len(log) == 0 || log[len(log)-1].New == "" || !c.s.hasBlob(ref.Digest(log[len(log)-1].New)) {
			return errors.New("its log does not say what it named")
		}
		tmp := c.in.tempBlob()
		if err := state.WriteDurable(tmp, []byte(log[len(log)-1].New+"\n")); err != nil {
			return err
		}
		return c.s.exchange(tmp, c.s.refPath(r))
	})
}

// images follows each image from its manifest to its layers.
func (c *checker) images(ctx context.Context) error {
	entries, err := os.ReadDir(c.s.imagesDir())
	if err != nil {
		return c.doubt(ctx, "images", err)
	}
	c.gauge = gauge{tell: c.o.Progress, action: "Checking layers", total: c.layerBytes()}
	for _, e := range entries {
		id := "sha256:" + e.Name()
		if _, err := ref.ParseDigest(id); err != nil {
			continue // said already
		}
		rec, err := c.s.readRecord(id)
		switch {
		case err == nil:
			err = c.image(ctx, id, rec.Manifest)
		case passing(err):
			err = c.doubt(ctx, "image "+id, err)
		default:
			err = nil // said already, or removed meanwhile
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	c.gauge.end()
	return nil
}

// layerBytes is how many bytes of blobs are unpacked once more.
func (c *checker) layerBytes() (sum int64) {
	counted := map[ref.Digest]bool{}
	for _, rec := range c.s.records() {
		m, _, err := c.s.manifestOf(rec.Manifest)
		if err != nil {
			continue
		}
		for _, l := range m.Layers {
			if fi, err := os.Lstat(c.s.blobPath(l.Digest)); err == nil && !counted[l.Digest] {
				counted[l.Digest] = true
				sum += fi.Size()
			}
		}
	}
	return sum
}

// need reports that the image id lacks the blob d, unless it is there; usable says that it can be relied on.
func (c *checker) need(ctx context.Context, id string, d ref.Digest, what string) (usable bool, err error) {
	here, err := c.has(d)
	if err != nil {
		return false, c.doubt(ctx, "image "+id, err)
	}
	if !here && !c.wrong[d] { // what is wrong was said already
		err = c.report(ctx, "image "+id, "its "+what+" "+string(d)+" is missing", cureRepair+", or "+curePull, func() error { return c.fetch(ctx, d) })
		here, _ = c.has(d)
	}
	return here && !c.wrong[d] && !c.doubted[d], err
}

func (c *checker) image(ctx context.Context, id string, target ref.Digest) error {
	if ok, err := c.need(ctx, id, target, "manifest"); !ok || err != nil {
		return err
	}
	m, _, err := c.s.manifestOf(target)
	if err != nil && passing(err) {
		return c.doubt(ctx, "image "+id, err)
	}
	if err != nil {
		return c.report(ctx, "image "+id, "its manifest cannot be understood: "+inLine(err), curePull, nil)
	}
	if ok, err := c.need(ctx, id, m.Config.Digest, "configuration"); !ok || err != nil {
		return err
	}
	data, err := c.s.readBlob(m.Config.Digest, maxConfig)
	if err != nil && passing(err) {
		return c.doubt(ctx, "image "+id, err)
	}
	if err != nil {
		return c.report(ctx, "image "+id, err.Error(), curePull, nil)
	}
	conf, err := parseConfig(data)
	if err != nil || len(conf.RootFS.DiffIDs) != len(m.Layers) {
		return c.report(ctx, "image "+id, "its configuration does not fit its manifest", curePull, nil)
	}
	chain := chainIDs(conf.RootFS.DiffIDs)
	for i, d := range m.Layers {
		if !c.wrong[d.Digest] && c.s.dropped(d.Digest, chain[i]) {
			if err := c.withoutBlob(ctx, i, d, conf.RootFS.DiffIDs[i], chain); err != nil {
				return err
			}
			continue
		}
		usable, err := c.need(ctx, id, d.Digest, "layer")
		if err != nil {
			return err
		}
		if c.layers[chain[i]] {
			continue
		}
		c.layers[chain[i]] = true
		if usable {
			err = c.layer(ctx, i, d, conf.RootFS.DiffIDs[i], chain)
		} else {
			err = c.alone(ctx, chain[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// withoutBlob compares a layer with the sum that was made when its blob was dropped. A damaged one needs the blob again.
func (c *checker) withoutBlob(ctx context.Context, i int, d descriptor, diffID string, chain []string) error {
	if c.layers[chain[i]] {
		return nil
	}
	c.layers[chain[i]] = true
	object := "layer " + chain[i]
	c.gauge.next(object, d.Size)
	problem, err := c.sumProblem(ctx, chain[i], diffID)
	switch {
	case err != nil:
		return c.doubt(ctx, object, err)
	case problem == "":
		return nil
	case !c.o.Repair:
		return c.report(ctx, object, problem, cureRepair+", which fetches its blob again", nil)
	}
	if err := c.fetch(ctx, d.Digest); err != nil {
		return c.report(ctx, object, problem, cureRepair, func() error { return fmt.Errorf("blob %s: %w", d.Digest, err) })
	}
	return c.layer(ctx, i, d, diffID, chain)
}

// sumProblem says how a layer differs from what it was when its blob was dropped; "" is not at all.
func (c *checker) sumProblem(ctx context.Context, chain, diffID string) (string, error) {
	want, err := c.s.readSum(chain)
	if err != nil {
		return "", err
	}
	have, err := layer.Sum(ctx, c.s.layerFS(chain))
	switch {
	case err != nil && absent(err):
		return "it is missing", nil
	case err != nil:
		return "", err
	case have != want:
		return "it is not what it was when its blob was dropped", nil
	}
	rec, err := c.s.readLayer(chain)
	if err != nil && passing(err) {
		return "", err
	}
	if err != nil || rec.DiffID != diffID {
		return "its record is damaged", nil
	}
	return "", nil
}

// alone looks at a layer whose blob cannot be compared with it.
func (c *checker) alone(ctx context.Context, chain string) error {
	switch _, err := os.Lstat(c.s.layerFS(chain)); {
	case absent(err):
		return c.report(ctx, "layer "+chain, "it is missing, and so is its blob", curePull, nil)
	case err != nil:
		return c.doubt(ctx, "layer "+chain, err)
	}
	return nil
}

// layer unpacks a blob beside the layer that should be the same, and compares them. What goes wrong with that ends
// nothing but this.
func (c *checker) layer(ctx context.Context, i int, d descriptor, diffID string, chain []string) error {
	object := "layer " + chain[i]
	c.gauge.next(object, d.Size)
	dir, fsDir, err := c.in.newLayer("check-" + strconv.Itoa(len(c.layers)))
	if err != nil {
		return c.doubt(ctx, object, err)
	}
	defer func() { _ = state.Remove(dir) }() // what stays is swept with everything else of ours
	res, err := c.s.unpackAgain(ctx, fsDir, d.Digest, chain[:i], func(r io.Reader) io.Reader { return c.gauge.reader(ctx, r) })
	if err != nil && passing(err) {
		return c.doubt(ctx, object, err)
	}
	if err != nil {
		return c.report(ctx, object, "its blob "+string(d.Digest)+" cannot be unpacked: "+inLine(err), curePull, nil)
	}
	if res.DiffID != diffID {
		return c.report(ctx, object, "its blob holds the content "+res.DiffID+", its image wants "+diffID, curePull, nil)
	}
	parent := ""
	if i > 0 {
		parent = chain[i-1]
	}
	want := layerRecord{DiffID: diffID, Parent: parent, Size: res.Size}
	problem, err := c.layerProblem(ctx, fsDir, chain[i], want)
	if err != nil {
		return c.doubt(ctx, object, err)
	}
	if problem == "" {
		return nil
	}
	if c.o.Busy != nil {
		busy, err := c.o.Busy(chain[i])
		if err != nil {
			return c.doubt(ctx, object, err)
		}
		if busy {
			return c.report(ctx, object, problem, "stop the containers that are made of it, then "+cureRepair, nil)
		}
	}
	return c.report(ctx, object, problem, cureRepair, func() error {
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
		return c.s.exchange(dir, c.s.layerPath(chain[i]))
	})
}

// unpackAgain unpacks the blob d of the layer that lies upon those below into the empty directory dir. through is what reads
// the blob's file.
func (s *Store) unpackAgain(ctx context.Context, dir string, d ref.Digest, below []string, through func(io.Reader) io.Reader) (layer.Result, error) {
	f, err := os.Open(s.blobPath(d))
	if err != nil {
		return layer.Result{}, err
	}
	defer f.Close()
	tar, _, err := layer.Decompress(through(f))
	if err != nil {
		return layer.Result{}, err
	}
	defer tar.Close()
	lower := func() ([]string, error) {
		var dirs []string
		for _, chain := range below {
			dirs = append(dirs, s.layerFS(chain))
		}
		return dirs, nil
	}
	return layer.Unpack(ctx, dir, tar, layer.Options{Lower: lower})
}

// layerProblem says how a layer differs from what was unpacked just now; "" is not at all.
func (c *checker) layerProblem(ctx context.Context, should, chain string, want layerRecord) (string, error) {
	differences, err := layer.Differ(ctx, should, c.s.layerFS(chain), 5)
	if err != nil {
		return "", err
	}
	if len(differences) > 0 {
		return strings.Join(differences, "; "), nil
	}
	have, err := c.s.readLayer(chain)
	if err != nil && passing(err) {
		return "", err
	}
	if err != nil || have != want {
		return "its record is damaged", nil
	}
	return "", nil
}

// index compares what is only there for other tools.
func (c *checker) index(ctx context.Context) error {
	data, err := state.Read(filepath.Join(c.s.root, "oci-layout"), 4096)
	switch {
	case err != nil && passing(err):
		err = c.doubt(ctx, "oci-layout", err)
	case err != nil || string(data) != ociLayout:
		err = c.report(ctx, "oci-layout", "it is damaged", cureRepair, func() error { return c.s.writeTop("oci-layout", []byte(ociLayout)) })
	}
	if err != nil {
		return err
	}
	data, err = state.Read(filepath.Join(c.s.root, "index.json"), 256<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever named
	}
	if err != nil && passing(err) {
		return c.doubt(ctx, "index.json", err)
	}
	if err == nil {
		_, err = parseIndex(data)
	}
	if err == nil {
		return nil
	}
	return c.report(ctx, "index.json", "it cannot be understood: "+err.Error(), cureRepair, func() error {
		return c.s.update(ctx, func() error { return nil })
	})
}
