package engine

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/state"
)

// idLength is the number of hex digits of a container's id.
const idLength = 64

// newID returns a random id. Not one of digits only in its first twelve places: a hostname made of it would be
// taken for a number.
func newID() string {
	var b [idLength / 2]byte
	for {
		rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}

func isID(s string) bool { return len(s) == idLength && isHex(s) }

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// maxName is what a directory entry can hold.
const maxName = 255

// checkName holds a container's name to Docker's rule; the name becomes a directory entry, a host name in files,
// and part of messages.
func checkName(name string) error {
	ok := len(name) >= 2 && len(name) <= maxName
	for i, c := range []byte(name) {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = ok && (alnum || i > 0 && (c == '_' || c == '.' || c == '-'))
	}
	if !ok {
		return errdef.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", clip(name))
	}
	return nil
}

// clip keeps what is quoted back to a person readable.
func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// claimName makes name the container id's, or says whose it is. The directory of id must exist.
func (e *Engine) claimName(name, id string) error {
	for {
		err := state.Claim(e.names(), name, filepath.Join("..", "containers", id))
		var taken *state.Taken
		if !errors.As(err, &taken) {
			return err
		}
		holder := filepath.Base(taken.Target)
		if e.forgotten(name, holder) {
			continue
		}
		return errdef.Conflict("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.",
			"/"+name, holder)
	}
}

// forgotten releases a name whose holder is called otherwise: a rename was killed in between.
func (e *Engine) forgotten(name, holder string) bool {
	l, ok, err := state.TryLock(e.dir(holder))
	if err != nil || !ok {
		return false // it is just being renamed
	}
	defer l.Unlock()
	r, err := e.readRecord(e.dir(holder))
	return err == nil && r.Name != name && e.releaseName(name, holder) == nil
}

func (e *Engine) releaseName(name, id string) error {
	if checkName(name) != nil { // of a damaged definition
		return nil
	}
	return state.Release(e.names(), name, filepath.Join("..", "containers", id))
}

// releaseNames releases whatever the container id is called, by asking every name: only for one whose definition is
// damaged.
func (e *Engine) releaseNames(id string) error {
	names, err := readNames(e.names())
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := e.releaseName(name, id); err != nil {
			return err
		}
	}
	return nil
}

// named returns the id of the container called name, or "".
func (e *Engine) named(name string) string {
	if checkName(name) != nil {
		return ""
	}
	target, err := os.Readlink(filepath.Join(e.names(), name))
	if err != nil {
		return ""
	}
	if id := filepath.Base(target); isID(id) {
		return id
	}
	return ""
}

// generateName proposes a name for a container that was given none; after some collisions it appends a number.
func generateName(attempt int) string {
	name := adjectives[mrand.IntN(len(adjectives))] + "_" + surnames[mrand.IntN(len(surnames))]
	if attempt > 3 {
		name += strconv.Itoa(mrand.IntN(1000))
	}
	return name
}

// Ships' moods, and people who made computing or seafaring what it is.
var adjectives = [...]string{
	"able", "ample", "ardent", "bold", "brave", "bright", "brisk", "calm", "candid", "clever", "cosy", "daring",
	"dapper", "eager", "early", "earnest", "easy", "fair", "fearless", "festive", "fleet", "fond", "frank", "gallant",
	"gentle", "glad", "golden", "grand", "hardy", "hearty", "honest", "jolly", "keen", "kind", "lively", "loyal",
	"lucid", "lucky", "mellow", "merry", "mighty", "modest", "nimble", "noble", "patient", "placid", "plucky",
	"polite", "prompt", "proud", "quick", "quiet", "rapid", "ready", "robust", "sage", "serene", "sharp", "silent",
	"sincere", "sleek", "smooth", "snug", "spry", "staunch", "steady", "stoic", "sturdy", "sunny", "swift", "tidy",
	"trusty", "upbeat", "valiant", "vivid", "warm", "wise", "witty", "zealous", "zesty",
}

var surnames = [...]string{
	"allen", "amundsen", "anning", "babbage", "backus", "bartik", "blackwell", "boole", "borg", "cook", "cray",
	"curie", "dijkstra", "drake", "earhart", "easley", "engelbart", "euler", "faraday", "feynman", "floyd", "fourier",
	"franklin", "galois", "gauss", "germain", "goedel", "goldberg", "hamilton", "hamming", "henson", "hoare",
	"hopper", "huffman", "hypatia", "iverson", "johnson", "kay", "kepler", "kernighan", "knuth", "kowalevski",
	"lamarr", "lamport", "leavitt", "liskov", "lovelace", "magellan", "mcarthy", "meitner", "mendel", "milner",
	"moore", "nansen", "naur", "neumann", "newton", "nightingale", "noether", "pascal", "perlman", "planck", "polo",
	"postel", "ramanujan", "ride", "ritchie", "sammet", "shackleton", "shannon", "sinclair", "slocum", "somerville",
	"spence", "stallman", "tanenbaum", "tereshkova", "tesla", "thompson", "torvalds", "turing", "wilkes", "wing",
	"wirth", "wozniak", "yonath", "zuse",
}
