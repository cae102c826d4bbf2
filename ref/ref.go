// Package ref parses the names of images and the digests of what they are made of.
//
//	r, err := ref.Parse("nginx")       // docker.io/library/nginx, no tag
//	r = r.Tagged()                     // ... with the tag latest
//	r.String()                         // "docker.io/library/nginx:latest"
//	r.Familiar()                       // "nginx:latest"
//	name, at, ok, err := ref.Cut("nginx:latest@{yesterday}")
//
// The grammar is that of Docker's references, matched by hand: it is on the way to every container, and regular
// expressions cost a millisecond before main. What Parse accepts is safe as a relative path: no component is
// empty, begins with a dot, or holds a slash, a NUL or a control character.
package ref

import (
	"strings"

	"hull/errdef"
)

// What Docker fills in.
const (
	DefaultRegistry  = "docker.io"
	DefaultNamespace = "library"
	DefaultTag       = "latest"
)

const (
	maxName = 255 // bytes of a registry, and of a repository
	maxTag  = 128
)

// Ref names an image in a repository: by tag, by digest, by both, or (neither) all of it.
type Ref struct {
	Registry string // host[:port]
	Repo     string // path on the registry, "library/nginx"
	Tag      string // may be empty
	Digest   Digest // may be empty
}

// Parse reads a reference as people type it and fills in registry and namespace, but no tag.
// The error has kind errdef.ErrInvalid and Docker's words.
func Parse(s string) (Ref, error) {
	var r Ref
	name, digest, ok := strings.Cut(s, "@")
	if ok {
		d, err := ParseDigest(digest)
		if err != nil {
			return Ref{}, invalid(s, "")
		}
		r.Digest = d
	}
	// The colon of a port is followed by a slash somewhere; the colon of a tag never is.
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.Tag = name[:i], name[i+1:]
		if !isTag(r.Tag) {
			return Ref{}, invalid(s, "")
		}
	}
	r.Registry, r.Repo = splitRegistry(name)
	if !isRegistry(r.Registry) || !isRepo(r.Repo) {
		if low := strings.ToLower(r.Repo); low != r.Repo && isRepo(low) {
			return Ref{}, invalid(s, ": repository name ("+r.Repo+") must be lowercase")
		}
		return Ref{}, invalid(s, "")
	}
	if len(r.Registry) > maxName || len(r.Repo) > maxName {
		return Ref{}, errdef.Invalid("repository name must not be more than %d characters", maxName)
	}
	if len(name) == 64 && isHex(name) {
		return Ref{}, errdef.Invalid("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", name)
	}
	return r, nil
}

func invalid(s, why string) error {
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return errdef.Invalid("invalid reference format%s: %q", why, s)
}

// splitRegistry decides as Docker does whether the first component is a host: it has a dot or a colon, is
// "localhost", or could not be a part of a repository because it is not lower case.
func splitRegistry(name string) (registry, repo string) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		registry, repo = DefaultRegistry, name
	} else {
		registry, repo = first, rest
	}
	if registry == "index.docker.io" {
		registry = DefaultRegistry
	}
	if registry == DefaultRegistry && !strings.Contains(repo, "/") {
		repo = DefaultNamespace + "/" + repo
	}
	return registry, repo
}

// Tagged returns r with DefaultTag if it has neither tag nor digest.
func (r Ref) Tagged() Ref {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = DefaultTag
	}
	return r
}

// Name is the full name of the repository: "docker.io/library/nginx".
func (r Ref) Name() string { return r.Registry + "/" + r.Repo }

// FamiliarName is the name of the repository as people type it: "nginx".
func (r Ref) FamiliarName() string {
	if r.Registry != DefaultRegistry {
		return r.Name()
	}
	short := strings.TrimPrefix(r.Repo, DefaultNamespace+"/")
	// "docker.io/library/a/b" must stay what it is: "a/b" would mean another repository.
	if strings.Contains(short, "/") {
		short = r.Repo
	}
	// A repository called like a host ("foo.bar/x") or like an id must keep its registry before it.
	if reg, repo := splitRegistry(short); reg != r.Registry || repo != r.Repo || len(short) == 64 && isHex(short) {
		return r.Name()
	}
	return short
}

// String is the reference in full.
func (r Ref) String() string { return r.Name() + r.suffix() }

// Familiar is the reference as people type it; Parse of it gives r again.
func (r Ref) Familiar() string { return r.FamiliarName() + r.suffix() }

func (r Ref) suffix() string {
	s := ""
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// isTag: [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
func isTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// isRepo: components of lower case letters and digits, parted by one dot, one or two underscores or any number
// of dashes; components are parted by slashes.
func isRepo(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !isRepoPart(part) {
			return false
		}
	}
	return true
}

func isRepoPart(s string) bool {
	for i := 0; ; {
		start := i
		for i < len(s) && isLowerAlnum(s[i]) {
			i++
		}
		if i == start {
			return false
		}
		if i == len(s) {
			return true
		}
		switch {
		case s[i] == '-':
			for i < len(s) && s[i] == '-' {
				i++
			}
		case strings.HasPrefix(s[i:], "__"):
			i += 2
		case s[i] == '_' || s[i] == '.':
			i++
		default:
			return false
		}
	}
}

// isRegistry: a host name, an IPv4 address, or an IPv6 address in brackets; then perhaps a port.
func isRegistry(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
			return false
		}
	}
	if v6, ok := strings.CutPrefix(host, "["); ok {
		v6, ok = strings.CutSuffix(v6, "]")
		return ok && v6 != "" && strings.Trim(v6, "0123456789abcdefABCDEF:") == ""
	}
	for part := range strings.SplitSeq(host, ".") {
		if part == "" || part[0] == '-' || part[len(part)-1] == '-' {
			return false
		}
		for i := range len(part) {
			if !isAlnum(part[i]) && part[i] != '-' {
				return false
			}
		}
	}
	return true
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
func isAlnum(c byte) bool      { return isLowerAlnum(c) || 'A' <= c && c <= 'Z' }
