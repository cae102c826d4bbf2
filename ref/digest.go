package ref

import (
	"strings"

	"hull/errdef"
)

// Digest is "sha256:" and 64, or "sha512:" and 128, lower case hexadecimal digits. A value that came from
// ParseDigest or out of JSON has that form, so it may become a file name; any other string must not be
// converted to it.
type Digest string

// ParseDigest accepts the two forms of a Digest and nothing else; the error has kind errdef.ErrInvalid.
func ParseDigest(s string) (Digest, error) {
	algorithm, hex, _ := strings.Cut(s, ":")
	if n := digits(algorithm); n == 0 || len(hex) != n || !isHex(hex) {
		if len(s) > 150 {
			s = s[:150] + "..."
		}
		return "", errdef.Invalid("invalid digest %q: want sha256: and 64 or sha512: and 128 lower case hexadecimal digits", s)
	}
	return Digest(s), nil
}

func digits(algorithm string) int {
	switch algorithm {
	case "sha256":
		return 64
	case "sha512":
		return 128
	}
	return 0
}

// UnmarshalText makes every digest in JSON of strangers a checked one.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDigest(string(text))
	return err
}

// Algorithm is "sha256" or "sha512".
func (d Digest) Algorithm() string { a, _, _ := strings.Cut(string(d), ":"); return a }

// Hex is the part after the colon.
func (d Digest) Hex() string { _, h, _ := strings.Cut(string(d), ":"); return h }

// Short is the first twelve digits, as people see ids.
func (d Digest) Short() string { h := d.Hex(); return h[:min(12, len(h))] }

// ShortID says whether s can be the beginning of an id: hexadecimal digits, perhaps with "sha256:" before
// them; it returns the digits.
func ShortID(s string) (hex string, ok bool) {
	hex = strings.TrimPrefix(s, "sha256:")
	return hex, hex != "" && len(hex) <= 64 && isHex(hex)
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
