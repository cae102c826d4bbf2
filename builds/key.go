package builds

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"hull/state"
)

// A cache key is a file of lines, each appended in one write and never changed, so that many may write to it:
//
//	result <id> <time>      what the step with this key made
//	link <link> <id>        the key of a step that has this one among its inputs, and how
//	from <link> <id>        the same from the other end
//
// The words are escaped as in a query string. A line that a killed process left half is none. Lines go only when the keys of a
// result that was removed are written anew, with the lock that whoever appends holds shared.

const (
	lineResult = "result"
	lineLink   = "link"
	lineFrom   = "from"
)

// keyName is the file of key id, which others choose: digests, with colons, and longer things.
func keyName(id string) string { return url.QueryEscape(id) }

func (s *Store) keyPath(id string) string { return s.path("keys", keyName(id)) }

// HasKey says whether anything is known of the key.
func (s *Store) HasKey(id string) bool {
	_, err := os.Stat(s.keyPath(id))
	return err == nil
}

// Keys calls f with every key.
func (s *Store) Keys(f func(id string) error) error {
	entries, err := os.ReadDir(s.path("keys"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, err := url.QueryUnescape(e.Name())
		if err != nil || strings.HasPrefix(e.Name(), state.TempPrefix) {
			continue
		}
		if err := f(id); err != nil {
			return err
		}
	}
	return nil
}

// lines calls f with the words of each line of the key that begins with kind.
func (s *Store) lines(id, kind string, f func(a, b string) error) error {
	data, err := os.ReadFile(s.keyPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) {
		a, b, ok := words(line, kind)
		if !ok {
			continue
		}
		if err := f(a, b); err != nil {
			return err
		}
	}
	return nil
}

func words(line []byte, kind string) (a, b string, ok bool) {
	text, whole := strings.CutSuffix(string(line), "\n")
	fields := strings.Fields(text)
	if !whole || len(fields) != 3 || fields[0] != kind {
		return "", "", false
	}
	a, err1 := url.QueryUnescape(fields[1])
	b, err2 := url.QueryUnescape(fields[2])
	return a, b, err1 == nil && err2 == nil
}

func (s *Store) has(id, kind, a, b string) bool {
	found := false
	_ = s.lines(id, kind, func(x, y string) error {
		found = found || x == a && y == b
		return nil
	})
	return found
}

// add appends a line to the key, unless it is there.
func (s *Store) add(id, kind, a, b string) error {
	l, err := s.lockKeys(state.LockShared)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if s.has(id, kind, a, b) {
		return nil
	}
	f, err := os.OpenFile(s.keyPath(id), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// The line feed before it ends what a killed process may have left.
	_, err = f.WriteString("\n" + kind + " " + url.QueryEscape(a) + " " + url.QueryEscape(b) + "\n")
	return errors.Join(err, f.Close())
}

func (s *Store) lockKeys(lock func(context.Context, string) (*state.Locked, error)) (*state.Locked, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), lockWait, errors.New("waited "+lockWait.String()))
	defer cancel()
	return lock(ctx, s.path("keys"))
}

// AddResult says that the step with the key made the result.
func (s *Store) AddResult(key, result string, made time.Time) error {
	if err := s.add(key, lineResult, result, made.UTC().Format(time.RFC3339Nano)); err != nil {
		return err
	}
	return s.note(result, key)
}

// ResultsOf calls f with the results of the key.
func (s *Store) ResultsOf(key string, f func(result string, made time.Time) error) error {
	return s.lines(key, lineResult, func(id, made string) error {
		t, err := time.Parse(time.RFC3339Nano, made)
		if err != nil {
			return nil
		}
		return f(id, t)
	})
}

// note keeps beside a result which keys have it.
func (s *Store) note(result, key string) error {
	f, err := os.OpenFile(s.path("results", result+keysSuffix), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + url.QueryEscape(key) + "\n")
	return errors.Join(err, f.Close())
}

const keysSuffix = ".keys"

// KeysOf calls f with the keys that have the result.
func (s *Store) KeysOf(result string, f func(key string) error) error {
	data, err := os.ReadFile(s.path("results", result+keysSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for word := range strings.FieldsSeq(string(data)) {
		if key, err := url.QueryUnescape(word); err == nil && s.HasKey(key) {
			if err := f(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Link says that the step with the key to has the one with the key from among its inputs.
func (s *Store) Link(from, link, to string) error {
	if err := s.add(from, lineLink, link, to); err != nil {
		return err
	}
	return s.add(to, lineFrom, link, from)
}

// Linked says whether there is such a link.
func (s *Store) Linked(from, link, to string) bool { return s.has(from, lineLink, link, to) }

// Links calls f with the links that begin at the key, Backlinks with those that end there.
func (s *Store) Links(key string, f func(link, to string) error) error {
	return s.lines(key, lineLink, f)
}

// Backlinks is Links for the other direction.
func (s *Store) Backlinks(key string, f func(link, from string) error) error {
	return s.lines(key, lineFrom, f)
}

// Release forgets the result, and with it the keys that lead nowhere any more.
func (s *Store) Release(result string) error {
	l, err := s.lockKeys(state.Lock)
	if err != nil {
		return err
	}
	defer l.Unlock()
	var keys []string
	if err := s.KeysOf(result, func(key string) error { keys = append(keys, key); return nil }); err != nil {
		return err
	}
	for _, key := range keys {
		if err := s.drop(key, func(kind, a, _ string) bool { return kind == lineResult && a == result }); err != nil {
			return err
		}
	}
	err = os.Remove(s.path("results", result+keysSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// drop writes the key anew without the lines that gone says yes to. A key without results and links to others is removed,
// and then those that only lead to it.
func (s *Store) drop(key string, gone func(kind, a, b string) bool) error {
	data, err := os.ReadFile(s.keyPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var kept bytes.Buffer
	needed := false
	type parent struct{ id, link string }
	var parents []parent
	for line := range bytes.Lines(data) {
		for _, kind := range []string{lineResult, lineLink, lineFrom} {
			a, b, ok := words(line, kind)
			if !ok || gone(kind, a, b) {
				continue
			}
			kept.Write(line)
			if kind == lineFrom {
				parents = append(parents, parent{b, a})
			} else {
				needed = true
			}
		}
	}
	if needed {
		return state.Write(s.keyPath(key), kept.Bytes())
	}
	if err := os.Remove(s.keyPath(key)); err != nil {
		return err
	}
	for _, p := range parents {
		err := s.drop(p.id, func(kind, a, b string) bool { return kind == lineLink && a == p.link && b == key })
		if err != nil {
			return err
		}
	}
	return nil
}
