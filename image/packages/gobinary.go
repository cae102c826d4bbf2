package packages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"hull/errdef"
)

// What Go's linker leaves in a program, since Go 1.18, in the section .go.buildinfo:
//
//	"\xff Go buildinf:"  pointer size  flags (2: strings follow)  ... to 32 bytes
//	length, version of Go;  length, 16 bytes, lines of module information, 16 bytes
//
// This reads it without the packages debug/elf and debug/buildinfo: they are made for files one trusts, and bigger than
// all that is needed of them.
const (
	goMagic   = "\xff Go buildinf:"
	goHeader  = 32
	goAlign   = 16
	maxGoInfo = 4 << 20 // bytes of module information
	maxScan   = 4 << 20 // bytes of a data segment that are searched, when there are no sections
)

// readGo returns the modules of a program of Go, the main one and Go itself among them; nil if it is none.
func readGo(path string, r io.ReaderAt, size int64) ([]Package, error) {
	var ident [64]byte
	if n, _ := r.ReadAt(ident[:], 0); n < len(ident) || string(ident[:4]) != "\x7fELF" {
		return nil, nil
	}
	at, length, err := buildInfoSection(ident[:], r, size)
	if err != nil || length == 0 {
		return nil, err
	}
	version, info, err := readBuildInfo(io.NewSectionReader(r, at, length))
	if err != nil || version == "" {
		return nil, err
	}
	return parseModules(path, version, info), nil
}

var errNoELF = errors.New("a damaged ELF file")

// elfFile knows where things are in the two classes and byte orders.
type elfFile struct {
	order  binary.ByteOrder
	wide   bool
	header []byte
}

func (e *elfFile) word(b []byte, at32, at64 int) uint64 {
	if e.wide {
		return e.order.Uint64(b[at64:])
	}
	return uint64(e.order.Uint32(b[at32:]))
}

// buildInfoSection finds where the information can be: in its section, or in what is written to when the program runs.
func buildInfoSection(header []byte, r io.ReaderAt, size int64) (at, length int64, err error) {
	e := elfFile{order: binary.LittleEndian, wide: header[4] == 2, header: header}
	if header[5] == 2 {
		e.order = binary.BigEndian
	}
	if at, length, ok := e.section(r, size); ok {
		return at, length, nil
	}
	return e.segment(r, size)
}

// table reads the entries of the section or program headers.
func (e *elfFile) table(r io.ReaderAt, at uint64, entry, count int, size int64) []byte {
	n := entry * count
	if n == 0 || at == 0 || at > uint64(size) || n > 1<<20 {
		return nil
	}
	b := make([]byte, n)
	if got, _ := r.ReadAt(b, int64(at)); got < n {
		return nil
	}
	return b
}

func (e *elfFile) section(r io.ReaderAt, size int64) (at, length int64, ok bool) {
	h := e.header
	entry, counts := 40, 46
	if e.wide {
		entry, counts = 64, 58
	}
	if int(e.order.Uint16(h[counts:])) != entry {
		return 0, 0, false
	}
	count, names := int(e.order.Uint16(h[counts+2:])), int(e.order.Uint16(h[counts+4:]))
	table := e.table(r, e.word(h, 32, 40), entry, count, size)
	if table == nil || names >= count {
		return 0, 0, false
	}
	place := func(i int) (at, length uint64) {
		s := table[i*entry : (i+1)*entry]
		return e.word(s, 16, 24), e.word(s, 20, 32)
	}
	namesAt, namesLen := place(names)
	if namesAt > uint64(size) {
		return 0, 0, false
	}
	text := make([]byte, min(namesLen, 1<<20, uint64(size)-namesAt))
	if n, _ := r.ReadAt(text, int64(namesAt)); n < len(text) {
		return 0, 0, false
	}
	for i := range count {
		name := uint64(e.order.Uint32(table[i*entry:]))
		if name >= uint64(len(text)) || !bytes.HasPrefix(text[name:], []byte(".go.buildinfo\x00")) {
			continue
		}
		at, length := place(i)
		if at > uint64(size) {
			return 0, 0, false
		}
		return int64(at), int64(min(length, uint64(size)-at)), true
	}
	return 0, 0, false
}

// segment returns the first writable segment, which begins with the information in a program without sections.
func (e *elfFile) segment(r io.ReaderAt, size int64) (at, length int64, err error) {
	h := e.header
	entry, counts := 32, 42
	if e.wide {
		entry, counts = 56, 54
	}
	if int(e.order.Uint16(h[counts:])) != entry {
		return 0, 0, nil
	}
	count := int(e.order.Uint16(h[counts+2:]))
	table := e.table(r, e.word(h, 28, 32), entry, count, size)
	for i := 0; i*entry < len(table); i++ {
		p := table[i*entry : (i+1)*entry]
		flags := e.order.Uint32(p[4:])
		if !e.wide {
			flags = e.order.Uint32(p[24:])
		}
		if e.order.Uint32(p) != 1 || flags&2 == 0 { // PT_LOAD, PF_W
			continue
		}
		from, n := e.word(p, 4, 8), e.word(p, 16, 32)
		if from > uint64(size) {
			return 0, 0, errdef.As(errdef.ErrInvalid, errNoELF)
		}
		return int64(from), int64(min(n, uint64(size)-from)), nil
	}
	return 0, 0, nil
}

// readBuildInfo finds the information in the section or segment r.
func readBuildInfo(r *io.SectionReader) (version, info string, err error) {
	data := make([]byte, min(r.Size(), maxScan+maxGoInfo))
	n, _ := r.ReadAt(data, 0)
	data = data[:n]
	for at := 0; at+goHeader <= min(len(data), maxScan); at += goAlign {
		i := bytes.Index(data[at:], []byte(goMagic))
		if i < 0 {
			return "", "", nil
		}
		if at += i; at%goAlign != 0 {
			at -= at % goAlign // go on behind it
			continue
		}
		if at+goHeader > len(data) {
			return "", "", nil
		}
		if data[at+15]&2 == 0 { // before Go 1.18: pointers into memory
			return "", "", nil
		}
		rest := data[at+goHeader:]
		version, rest, ok := cutString(rest)
		if !ok {
			return "", "", errdef.Invalid("the build information of Go is cut off")
		}
		info, _, ok := cutString(rest)
		if !ok {
			return version, "", errdef.Invalid("the build information of Go is cut off")
		}
		// The information is between two marks of 16 bytes.
		if len(info) < 33 || info[len(info)-17] != '\n' {
			return version, "", nil
		}
		return version, info[16 : len(info)-16], nil
	}
	return "", "", nil
}

// cutString takes a length and that many bytes off.
func cutString(b []byte) (string, []byte, bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) || n > maxGoInfo {
		return "", nil, false
	}
	b = b[used:]
	return string(b[:n]), b[n:], true
}

// parseModules reads lines such as "dep\tgolang.org/x/sys\tv0.1.0\th1:...": path, mod, dep, "=>" of a replaced one, build.
func parseModules(program, version, info string) []Package {
	out := []Package{{Kind: "go", Name: "go", Version: strings.TrimPrefix(version, "go"), In: program}}
	var revision string
	main := -1
	for line := range strings.Lines(info) {
		word, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		f := strings.Split(rest, "\t")
		switch {
		case len(out) > maxPackages:
			return out
		case (word == "mod" || word == "dep") && len(f) >= 2:
			if word == "mod" {
				main = len(out)
			}
			out = append(out, Package{Kind: "go", Name: f[0], Version: f[1], In: program})
		case word == "=>" && len(f) >= 2 && len(out) > 1:
			out[len(out)-1].Version = strings.TrimSpace(f[0] + " " + f[1])
		case word == "build" && strings.HasPrefix(rest, "vcs.revision="):
			revision = strings.TrimPrefix(rest, "vcs.revision=")
		}
	}
	// What was built in its repository has no version but a revision.
	if main > 0 && (out[main].Version == "(devel)" || out[main].Version == "") && revision != "" {
		out[main].Version = revision[:min(12, len(revision))]
	}
	return out
}
