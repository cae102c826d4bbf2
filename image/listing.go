package image

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"hull/state"
)

// A store of a thousand images is some thousands of small files, and to open each takes most of the time of a list.
// So a list is kept, refs/.list, as long as it is right. Nothing relies on it:
//
//	a change      removes it first, under the lock of references
//	a list        that misses it reads the files, and writes it if nobody changes anything meanwhile
//	a power cut   may bring an old one back: one of another boot, or older than a record, does not count
//
// With few images it is not worth a file.
const listingFrom = 64

func (s *Store) listingPath() string { return filepath.Join(s.root, "refs", ".list") }

// forgetListing is called within update, before anything changes.
func (s *Store) forgetListing() error {
	if err := os.Remove(s.listingPath()); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// listed is summaries by way of the listing.
func (s *Store) listed(ctx context.Context) []Summary {
	head := s.listingHead()
	if list, ok := s.readListing(head); ok {
		return list
	}
	l, ok, err := state.TryLock(filepath.Join(s.root, "refs"))
	if !ok || err != nil {
		return s.summaries()
	}
	defer l.Unlock()
	head = s.listingHead()
	list := s.summaries()
	if len(list) >= listingFrom && head != "" && ctx.Err() == nil {
		_ = state.Write(s.listingPath(), encodeListing(head, list)) // or the next one does
	}
	return list
}

// listingHead begins a listing that is right now: the form of the rest, the boot, and when a record last came or went.
// "" if that is not known.
func (s *Store) listingHead() string {
	var st unix.Stat_t
	if unix.Stat(s.imagesDir(), &st) != nil {
		return ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	b := append([]byte("hull images 2 "), boot...)
	b = binary.AppendVarint(b, st.Mtim.Sec)
	b = binary.AppendVarint(b, st.Mtim.Nsec)
	return string(b)
}

func (s *Store) readListing(head string) ([]Summary, bool) {
	if head == "" {
		return nil, false
	}
	data, err := state.Read(s.listingPath(), 256<<20)
	if err != nil {
		return nil, false
	}
	rest, ok := strings.CutPrefix(string(data), head)
	if !ok {
		return nil, false
	}
	return decodeListing(rest)
}

func encodeListing(head string, list []Summary) []byte {
	b := binary.AppendUvarint([]byte(head), uint64(len(list)))
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	texts := func(list []string) {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			text(s)
		}
	}
	for i := range list {
		text(list[i].ID)
		texts(list[i].RepoTags)
		texts(list[i].RepoDigests)
		created, _ := list[i].Created.MarshalBinary() // fails for zones that JSON cannot say either
		text(string(created))
		b = binary.AppendVarint(b, list[i].Size)
		pinned := int64(0)
		if list[i].Pinned {
			pinned = 1
		}
		b = binary.AppendVarint(b, pinned)
		b = binary.AppendUvarint(b, uint64(len(list[i].Labels)))
		for k, v := range list[i].Labels {
			text(k)
			text(v)
		}
	}
	return append(b, "end"...)
}

// decodeListing is the inverse of encodeListing; false for what that cannot have written.
func decodeListing(in string) ([]Summary, bool) {
	d := decoder{rest: in, ok: true}
	list := make([]Summary, 0, d.count())
	for range cap(list) {
		i := Summary{ID: d.text(), RepoTags: d.texts(), RepoDigests: d.texts()}
		if i.Created.UnmarshalBinary([]byte(d.text())) != nil {
			return nil, false
		}
		i.Size, i.Pinned = d.number(), d.number() == 1
		if n := d.count(); n > 0 {
			i.Labels = make(map[string]string, n)
			for range n {
				k := d.text()
				i.Labels[k] = d.text()
			}
		}
		if !d.ok {
			return nil, false
		}
		list = append(list, i)
	}
	return list, d.ok && d.rest == "end"
}

// decoder takes values off the front of rest until one is not there: then ok is false, and all values are zero.
type decoder struct {
	rest string
	ok   bool
}

func (d *decoder) uvarint() (v uint64) {
	for shift := 0; d.ok && shift < 64; shift += 7 {
		if d.rest == "" {
			break
		}
		c := d.rest[0]
		d.rest = d.rest[1:]
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	d.ok = false
	return 0
}

func (d *decoder) number() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count is a number of things that each take a byte at least.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.ok = false
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.count()
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) texts() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.text()
	}
	return list
}
