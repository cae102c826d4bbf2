package packages

import (
	"encoding/binary"
	"errors"
	"io"

	"hull/errdef"
)

// sqlite reads the rows of a table of an SQLite database (https://sqlite.org/fileformat2.html), without its journals: what
// an image has was closed.
type sqlite struct {
	path   string
	r      io.ReaderAt
	page   int // bytes
	usable int // bytes of a page that SQLite itself uses
	pages  uint32
	budget int64 // bytes still to be read: no page needs to be read more often than a few times
}

const (
	interiorTable, leafTable = 5, 13
	maxTreeDepth             = 20
)

func openSqlite(path string, r io.ReaderAt, size int64) (*sqlite, error) {
	var head [100]byte
	if n, _ := r.ReadAt(head[:], 0); n < len(head) || string(head[:16]) != "SQLite format 3\x00" {
		return nil, errdef.Invalid("%s is not an SQLite database", path)
	}
	db := &sqlite{path: path, r: r, page: int(binary.BigEndian.Uint16(head[16:])), budget: 4*size + 1<<20}
	if db.page == 1 {
		db.page = 65536
	}
	db.usable = db.page - int(head[20])
	if db.page < 512 || db.page&(db.page-1) != 0 || db.usable < 480 {
		return nil, db.damaged()
	}
	db.pages = uint32(min(size/int64(db.page), 1<<31))
	return db, nil
}

func (db *sqlite) damaged() error { return errdef.Invalid("%s is damaged", db.path) }

// read returns page number n, from 1.
func (db *sqlite) read(n uint32) ([]byte, error) {
	if db.budget -= int64(db.page); n == 0 || n > db.pages || db.budget < 0 {
		return nil, db.damaged()
	}
	b := make([]byte, db.page)
	if got, err := db.r.ReadAt(b, int64(n-1)*int64(db.page)); got < len(b) {
		return nil, errors.Join(db.damaged(), err)
	}
	return b[:db.usable], nil
}

// table finds the root page of a table in the schema, which is the table on page 1.
func (db *sqlite) table(name string) (root uint32, err error) {
	err = db.rows(1, func(record []byte) bool {
		if string(column(record, 0)) == "table" && string(column(record, 1)) == name {
			for _, b := range column(record, 3) {
				root = root<<8 | uint32(b)
			}
		}
		return root == 0
	})
	if err == nil && root == 0 {
		err = errdef.Invalid("%s has no table %s", db.path, name)
	}
	return root, err
}

// rows calls f with each record of the table with this root, until it returns false.
func (db *sqlite) rows(root uint32, f func(record []byte) bool) error {
	_, err := db.tree(root, 0, f)
	return err
}

func (db *sqlite) tree(n uint32, depth int, f func([]byte) bool) (more bool, err error) {
	b, err := db.read(n)
	if err != nil {
		return false, err
	}
	head := b
	if n == 1 {
		head = b[100:]
	}
	kind, cells := head[0], int(binary.BigEndian.Uint16(head[3:]))
	start := 8
	if kind == interiorTable {
		start = 12
	}
	if kind != interiorTable && kind != leafTable || depth > maxTreeDepth || start+2*cells > len(head) {
		return false, db.damaged()
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(head[start+2*i:]))
		if at+4 > len(b) {
			return false, db.damaged()
		}
		more := true
		if kind == interiorTable {
			more, err = db.tree(binary.BigEndian.Uint32(b[at:]), depth+1, f)
		} else {
			var record []byte
			if record, err = db.payload(b[at:]); err == nil {
				more = f(record)
			}
		}
		if err != nil || !more {
			return false, err
		}
	}
	if kind == interiorTable {
		return db.tree(binary.BigEndian.Uint32(head[8:]), depth+1, f)
	}
	return true, nil
}

// payload returns the record of a cell of a leaf: what does not fit into the page is in a chain of other pages.
func (db *sqlite) payload(cell []byte) ([]byte, error) {
	length, n := varint(cell)
	_, m := varint(cell[n:]) // the row's number
	cell = cell[n+m:]
	if n == 0 || m == 0 || length > maxHeader || int64(length) > int64(db.pages)*int64(db.page) {
		return nil, db.damaged()
	}
	size, local := int(length), int(length)
	if most := db.usable - 35; size > most {
		least := (db.usable-12)*32/255 - 23
		local = least + (size-least)%(db.usable-4)
		if local > most {
			local = least
		}
	}
	if local > len(cell) {
		return nil, db.damaged()
	}
	if local == size {
		return cell[:size], nil
	}
	if local+4 > len(cell) {
		return nil, db.damaged()
	}
	out := append(make([]byte, 0, size), cell[:local]...)
	for next := binary.BigEndian.Uint32(cell[local:]); len(out) < size; {
		b, err := db.read(next)
		if err != nil {
			return nil, err
		}
		next = binary.BigEndian.Uint32(b)
		out = append(out, b[4:min(len(b), 4+size-len(out))]...)
	}
	return out, nil
}

// column returns the bytes of one column of a record; nil if it has none.
func column(record []byte, want int) []byte {
	size, n := varint(record)
	if n == 0 || size > uint64(len(record)) {
		return nil
	}
	head, values := record[n:max(n, int(size))], record[size:]
	for i := 0; len(head) > 0; i++ {
		serial, n := varint(head)
		if n == 0 {
			return nil
		}
		head = head[n:]
		length := serialLength(serial)
		if length > uint64(len(values)) {
			return nil
		}
		if i == want {
			return values[:length]
		}
		values = values[length:]
	}
	return nil
}

// serialLength is how many bytes a value of that type has.
func serialLength(serial uint64) uint64 {
	switch {
	case serial >= 12:
		return (serial - 12) / 2
	case serial <= 4:
		return serial
	case serial == 5:
		return 6
	case serial <= 7:
		return 8
	}
	return 0
}

// varint reads one of SQLite's numbers, of nine bytes at most; n is 0 when b ends before it does.
func varint(b []byte) (v uint64, n int) {
	for i := range min(len(b), 9) {
		if i == 8 {
			return v<<8 | uint64(b[i]), 9
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
