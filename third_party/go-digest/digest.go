// Package digest stands in for the module of the same path (see replace in Hull's go.mod). That one compiles
// regular expressions when a program starts: 841 allocations and 0.4 ms of every hull command, for a type that the
// Engine API's structs mention and Hull itself never looks into (package ref checks digests).
//
// It has the names of that module which BuildKit's packages use, with the same meaning, and nothing that runs before main. What
// only they call, the linker leaves out of hull.
package digest

import (
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// What Parse and Validate complain of.
var (
	ErrDigestInvalidFormat = errors.New("invalid checksum digest format")
	ErrDigestInvalidLength = errors.New("invalid checksum digest length")
	ErrDigestUnsupported   = errors.New("unsupported digest algorithm")
)

// Digest is ALGORITHM:HEX.
type Digest string

// Algorithm names a hash function.
type Algorithm string

// The algorithms there are.
const (
	SHA256    Algorithm = "sha256"
	SHA384    Algorithm = "sha384"
	SHA512    Algorithm = "sha512"
	Canonical           = SHA256
)

// NewDigest is the digest of what was written to h.
func NewDigest(a Algorithm, h hash.Hash) Digest { return NewDigestFromBytes(a, h.Sum(nil)) }

// NewDigestFromBytes is the digest with the sum p.
func NewDigestFromBytes(a Algorithm, p []byte) Digest { return NewDigestFromEncoded(a, a.Encode(p)) }

// NewDigestFromEncoded is the digest with the sum in hexadecimal digits.
func NewDigestFromEncoded(a Algorithm, encoded string) Digest {
	return Digest(string(a) + ":" + encoded)
}

// NewDigestFromHex is NewDigestFromEncoded by its old name.
func NewDigestFromHex(a, encoded string) Digest { return NewDigestFromEncoded(Algorithm(a), encoded) }

// Parse checks a digest.
func Parse(s string) (Digest, error) {
	d := Digest(s)
	return d, d.Validate()
}

// FromReader is the digest of all that r has.
func FromReader(r io.Reader) (Digest, error) { return Canonical.FromReader(r) }

// FromBytes is the digest of p.
func FromBytes(p []byte) Digest { return Canonical.FromBytes(p) }

// FromString is the digest of s.
func FromString(s string) Digest { return Canonical.FromString(s) }

// Validate says what is wrong with a digest.
func (d Digest) Validate() error {
	algorithm, encoded, ok := strings.Cut(string(d), ":")
	if !ok || encoded == "" || !isAlgorithm(algorithm) || !isEncoded(encoded) {
		return ErrDigestInvalidFormat
	}
	a := Algorithm(algorithm)
	if !a.Available() {
		return ErrDigestUnsupported
	}
	return a.Validate(encoded)
}

// isAlgorithm: words of lower case letters and digits, joined by one of + . - _.
func isAlgorithm(s string) bool {
	word := false
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			word = true
		case word && strings.ContainsRune("+.-_", c):
			word = false
		default:
			return false
		}
	}
	return word
}

func isEncoded(s string) bool {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '=' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

func (d Digest) cut() (algorithm, encoded string) {
	algorithm, encoded, ok := strings.Cut(string(d), ":")
	if !ok {
		panic(fmt.Sprintf("no ':' separator in digest %q", string(d)))
	}
	return algorithm, encoded
}

// Algorithm is the part before the colon. It panics if there is none, as Encoded and Verifier do: Validate first.
func (d Digest) Algorithm() Algorithm {
	a, _ := d.cut()
	return Algorithm(a)
}

// Encoded is the part behind the colon.
func (d Digest) Encoded() string {
	_, encoded := d.cut()
	return encoded
}

// Hex is Encoded by its old name.
func (d Digest) Hex() string { return d.Encoded() }

func (d Digest) String() string { return string(d) }

// Verifier compares what is written to it with the digest.
func (d Digest) Verifier() Verifier { return &verifier{d, d.Algorithm().Hash()} }

// Verifier says whether what was written to it has a digest.
type Verifier interface {
	io.Writer
	Verified() bool
}

type verifier struct {
	d Digest
	h hash.Hash
}

func (v *verifier) Write(p []byte) (int, error) { return v.h.Write(p) }
func (v *verifier) Verified() bool              { return v.d == NewDigest(v.d.Algorithm(), v.h) }

// Digester computes a digest.
type Digester interface {
	Hash() hash.Hash
	Digest() Digest
}

type digester struct {
	a Algorithm
	h hash.Hash
}

func (d *digester) Hash() hash.Hash { return d.h }
func (d *digester) Digest() Digest  { return NewDigest(d.a, d.h) }

func (a Algorithm) hash() crypto.Hash {
	switch a {
	case SHA256:
		return crypto.SHA256
	case SHA384:
		return crypto.SHA384
	case SHA512:
		return crypto.SHA512
	}
	return 0
}

// Available says whether the algorithm is one of those above.
func (a Algorithm) Available() bool { return a.hash() != 0 }

func (a Algorithm) String() string { return string(a) }

// Size is the length of a sum, in bytes; 0 of an algorithm that nobody knows.
func (a Algorithm) Size() int {
	if h := a.hash(); h != 0 {
		return h.Size()
	}
	return 0
}

// Set makes a flag of an algorithm.
func (a *Algorithm) Set(value string) error {
	*a = Algorithm(value)
	if value == "" {
		*a = Canonical
	}
	if !a.Available() {
		return ErrDigestUnsupported
	}
	return nil
}

// Digester returns a new digester.
func (a Algorithm) Digester() Digester { return &digester{a, a.Hash()} }

// Hash returns a new hash. It panics for an algorithm that nobody knows.
func (a Algorithm) Hash() hash.Hash {
	switch a {
	case "", SHA256:
		return sha256.New()
	case SHA384:
		return sha512.New384()
	case SHA512:
		return sha512.New()
	}
	panic(fmt.Sprintf("%s not available (make sure it is imported)", a))
}

// Encode is p in hexadecimal digits.
func (a Algorithm) Encode(p []byte) string { return hex.EncodeToString(p) }

// FromReader is the digest of all that r has.
func (a Algorithm) FromReader(r io.Reader) (Digest, error) {
	d := a.Digester()
	if _, err := io.Copy(d.Hash(), r); err != nil {
		return "", err
	}
	return d.Digest(), nil
}

// FromBytes is the digest of p.
func (a Algorithm) FromBytes(p []byte) Digest {
	h := a.Hash()
	h.Write(p)
	return NewDigest(a, h)
}

// FromString is the digest of s.
func (a Algorithm) FromString(s string) Digest { return a.FromBytes([]byte(s)) }

// Validate says what is wrong with a sum.
func (a Algorithm) Validate(encoded string) error {
	if !a.Available() {
		return ErrDigestUnsupported
	}
	if len(encoded) != 2*a.Size() {
		return ErrDigestInvalidLength
	}
	for _, c := range encoded {
		if !(c >= 'a' && c <= 'f' || c >= '0' && c <= '9') {
			return ErrDigestInvalidFormat
		}
	}
	return nil
}
