package packages

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"

	"hull/errdef"
)

// The databases of rpm hold a header for each package, in one of three files: an SQLite table Packages(hnum, blob), rpm's
// own format ndb, or the Berkeley DB of old.

const maxHeader = 32 << 20 // bytes of the header of one package, which lists its files

// Tags of a header that are of interest, and the types of their values.
const (
	tagName, tagVersion, tagRelease, tagEpoch = 1000, 1001, 1002, 1003
	typeInt32, typeString                     = 4, 6
)

// rpmHeader reads the header of an installed package: two counts, an index of 16 bytes for each tag, and the values.
func rpmHeader(b []byte) (Package, bool) {
	if len(b) < 8 {
		return Package{}, false
	}
	count, size := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if uint64(count)*16 > uint64(len(b)-8) {
		return Package{}, false
	}
	index, values := b[8:8+count*16], b[8+count*16:]
	values = values[:min(uint64(len(values)), uint64(size))]
	var name, version, release, epoch string
	for ; len(index) > 0; index = index[16:] {
		tag, kind, at := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[4:]), binary.BigEndian.Uint32(index[8:])
		if uint64(at) >= uint64(len(values)) {
			continue
		}
		value := values[at:]
		if tag == tagEpoch && kind == typeInt32 && len(value) >= 4 {
			epoch = strconv.FormatUint(uint64(binary.BigEndian.Uint32(value)), 10)
		}
		if kind != typeString {
			continue
		}
		text, _, ok := bytes.Cut(value[:min(len(value), maxField+1)], []byte{0})
		if !ok {
			continue
		}
		switch tag {
		case tagName:
			name = string(text)
		case tagVersion:
			version = string(text)
		case tagRelease:
			release = string(text)
		}
	}
	if release != "" {
		version += "-" + release
	}
	if epoch != "" && epoch != "0" {
		version = epoch + ":" + version
	}
	// The keys that packages are signed with are kept as packages too.
	return Package{Kind: "rpm", Name: name, Version: version}, name != "" && name != "gpg-pubkey"
}

// readRpmBdb says that a Berkeley DB cannot be read: rpm has not written one since 2020.
func readRpmBdb(path string, _ io.ReaderAt, _ int64) ([]Package, error) {
	return nil, errdef.Invalid("%s is a Berkeley DB, which is not read: its packages are missing here", path)
}

// readRpmNdb reads Packages.db: pages of 4096 bytes with slots of 16 that say where, in blocks of 16, the headers are. All
// numbers are little endian.
func readRpmNdb(path string, r io.ReaderAt, size int64) (out []Package, err error) {
	damaged := errdef.Invalid("%s is damaged", path)
	var head [16]byte
	if n, _ := r.ReadAt(head[:], 0); n < len(head) || string(head[:4]) != "RpmP" {
		return nil, damaged
	}
	pages := binary.LittleEndian.Uint32(head[12:])
	if pages == 0 || pages > 1<<14 { // 4 million slots
		return nil, damaged
	}
	slots := make([]byte, min(int64(pages)*4096, size))
	if n, _ := r.ReadAt(slots, 0); n < len(slots) {
		return nil, damaged
	}
	budget := 2 * size // of headers: each is somewhere in the file once
	for slots = slots[min(32, len(slots)):]; len(slots) >= 16; slots = slots[16:] {
		index, block := binary.LittleEndian.Uint32(slots[4:]), binary.LittleEndian.Uint32(slots[8:])
		if string(slots[:4]) != "Slot" {
			return out, damaged
		}
		if index == 0 || len(out) > maxPackages {
			continue
		}
		var blob [16]byte
		at := int64(block) * 16
		if n, _ := r.ReadAt(blob[:], at); n < len(blob) || string(blob[:4]) != "BlbS" || binary.LittleEndian.Uint32(blob[4:]) != index {
			return out, damaged
		}
		length := int64(binary.LittleEndian.Uint32(blob[12:]))
		if budget -= length; length > min(maxHeader, size) || budget < 0 {
			return out, damaged
		}
		b := make([]byte, length)
		if n, _ := r.ReadAt(b, at+16); n < len(b) {
			return out, damaged
		}
		if p, ok := rpmHeader(b); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// readRpmSqlite reads the table Packages of an SQLite database.
func readRpmSqlite(path string, r io.ReaderAt, size int64) (out []Package, err error) {
	db, err := openSqlite(path, r, size)
	if err != nil {
		return nil, err
	}
	root, err := db.table("Packages")
	if err != nil {
		return nil, err
	}
	err = db.rows(root, func(record []byte) bool {
		if blob := column(record, 1); blob != nil {
			if p, ok := rpmHeader(blob); ok {
				out = append(out, p)
			}
		}
		return len(out) <= maxPackages
	})
	return out, err
}
