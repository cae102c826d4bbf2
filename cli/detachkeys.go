package cli

import (
	"errors"
	"io"
	"strings"

	"hull/errdef"
)

// defaultDetachKeys leave a container's terminal without ending it: ctrl-p, then ctrl-q.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// errDetached ends stdin when the detach keys were pressed.
var errDetached = errors.New("read escape sequence")

// detachKeys parses a comma separated list of characters and ctrl-X.
func detachKeys(s string) ([]byte, error) {
	if s == "" {
		s = defaultDetachKeys
	}
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		b, ok := key(k)
		if !ok {
			return nil, errdef.Invalid("invalid detach keys (%s): %q is neither one character nor ctrl- and a letter or one of @ [ \\ ] ^ _", s, k)
		}
		keys = append(keys, b)
	}
	return keys, nil
}

func key(k string) (byte, bool) {
	if len(k) == 1 {
		return k[0], true
	}
	c, ok := strings.CutPrefix(strings.ToLower(k), "ctrl-")
	if !ok || len(c) != 1 {
		return 0, false
	}
	switch b := c[0]; {
	case b >= 'a' && b <= 'z':
		return b - 'a' + 1, true
	case b == '@':
		return 0, true
	case b >= '[' && b <= '_':
		return b - 'A' + 1, true
	}
	return 0, false
}

// detachReader passes on what r reads until the keys come in a row, and then returns errDetached. Keys that may be
// the beginning of them are held back until the next one decides.
type detachReader struct {
	r       io.Reader
	keys    []byte
	matched int
	rest    []byte // decided, but did not fit the caller's buffer
	err     error  // comes after rest
}

func (d *detachReader) Read(p []byte) (int, error) {
	for {
		if len(d.rest) > 0 {
			n := copy(p, d.rest)
			d.rest = d.rest[n:]
			return n, nil
		}
		if d.err != nil {
			return 0, d.err
		}
		buf := make([]byte, max(1, len(p)))
		n, err := d.r.Read(buf)
		d.rest = d.filter(buf[:n])
		if d.err == nil && err != nil {
			if err == io.EOF { // nothing will decide about the held back ones any more
				d.rest = append(d.rest, d.keys[:d.matched]...)
				d.matched = 0
			}
			d.err = err
		}
	}
}

func (d *detachReader) filter(in []byte) []byte {
	out := make([]byte, 0, len(in)+d.matched)
	for _, b := range in {
		for d.matched > 0 && b != d.keys[d.matched] {
			// The longest other beginning of the keys that these keys end with.
			held := d.keys[:d.matched]
			n := d.matched - 1
			for n > 0 && string(held[len(held)-n:]) != string(d.keys[:n]) {
				n--
			}
			out = append(out, held[:len(held)-n]...)
			d.matched = n
		}
		if b != d.keys[d.matched] {
			out = append(out, b)
			continue
		}
		if d.matched++; d.matched == len(d.keys) {
			d.err = errDetached
			return out
		}
	}
	return out
}
