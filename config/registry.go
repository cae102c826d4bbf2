package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/ref"
)

// RegistryRoute is what is settled for the repositories under a name: "*" for all, "*.DOMAIN", HOST[:PORT], or
// HOST[:PORT]/PATH for that repository and those below it.
type RegistryRoute struct {
	Name string

	Mirrors []string // URLs that are asked before; nil is not settled, and an empty list asks none
	Rewrite string   // HOST[:PORT]/PATH instead of Name
	Block   *bool
	Why     string // of a block
	Direct  *bool  // false asks only the mirrors when something is pulled

	Insecure, HTTP bool     // of a host
	CA             []string // files of certificates that vouch for it
	Cert, Key      string   // files of our own certificate
}

// Leads reports whether the route says where to ask.
func (r *RegistryRoute) Leads() bool {
	return r.Mirrors != nil || r.Rewrite != "" || r.Block != nil || r.Direct != nil
}

// Speaks reports whether the route says how to speak to its host.
func (r *RegistryRoute) Speaks() bool { return r.Insecure || r.HTTP || r.CA != nil || r.Cert != "" }

// routes reads a table by name.
func (v *value) routes(to *[]RegistryRoute) error {
	if v.kind != isTable {
		return mistakeAt(v, "want a table of registries, not %s", v)
	}
	var out []RegistryRoute
	for _, m := range v.members {
		r, err := m.value.route(m.name)
		if err != nil {
			return say(fmt.Sprintf("%q", m.name), err)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b RegistryRoute) int { return cmp.Compare(a.Name, b.Name) })
	*to = out
	return nil
}

func (v *value) route(name string) (RegistryRoute, error) {
	r := RegistryRoute{Name: name}
	if err := checkRouteName(name); err != nil {
		return r, mistakeAt(v, "%v", err)
	}
	f, err := v.fields("mirrors", "rewrite", "block", "direct", "insecure", "http", "ca", "cert", "key")
	if err != nil {
		return r, err
	}
	for i, set := range []func(*value) error{
		func(x *value) error { return x.strings(&r.Mirrors, checkRouteMirror) },
		func(x *value) error { return x.checked(&r.Rewrite, checkRewrite) },
		func(x *value) error {
			r.Block = new(bool)
			if x.kind == isString {
				*r.Block = true
				return x.checked(&r.Why, checkLine)
			}
			return x.flag(r.Block)
		},
		func(x *value) error { r.Direct = new(bool); return x.flag(r.Direct) },
		func(x *value) error { return x.flag(&r.Insecure) },
		func(x *value) error { return x.flag(&r.HTTP) },
		func(x *value) error { return x.someStrings(&r.CA, checkFile) },
		func(x *value) error { return x.checked(&r.Cert, checkFile) },
		func(x *value) error { return x.checked(&r.Key, checkFile) },
	} {
		if f[i] == nil {
			continue
		}
		if err := set(f[i]); err != nil {
			return r, err
		}
	}
	switch {
	case (r.Cert == "") != (r.Key == ""):
		return r, mistakeAt(v, "cert and key belong together")
	case r.Speaks() && strings.Contains(name, "/"):
		return r, mistakeAt(v, "insecure, http, ca, cert and key are of a host, not of a repository: set them for %q", name[:strings.Index(name, "/")])
	case r.Rewrite != "" && strings.HasPrefix(name, "*") && !strings.Contains(r.Rewrite, "/"):
		return r, mistakeAt(v, "rewrite: want HOST[:PORT]/PATH for a name with a star, so that registries stay apart; {registry} stands for the registry's name")
	}
	return r, nil
}

// someStrings reads a text or a list of texts.
func (v *value) someStrings(to *[]string, check func(string) error) error {
	if v.kind == isString {
		var s string
		if err := v.checked(&s, check); err != nil {
			return err
		}
		*to = []string{s}
		return nil
	}
	return v.strings(to, check)
}

// RegistryPlaceholder stands in mirrors and rewrites for the name of the registry.
const RegistryPlaceholder = "{registry}"

func checkRouteName(s string) error {
	host, path, two := strings.Cut(s, "/")
	switch rest, star := strings.CutPrefix(host, "*"); {
	case star && two:
		return mistake("%q: a name with a star has no path", s)
	case star && rest == "":
		return nil
	case star:
		domain, ok := strings.CutPrefix(rest, ".")
		if !ok || checkRegistry(domain) != nil || strings.Contains(domain, ":") {
			return mistake("%q: want *, *.DOMAIN, HOST[:PORT] or HOST[:PORT]/PATH", s)
		}
		return nil
	}
	if !two {
		path = "x"
	}
	if host == "" {
		return mistake("%q: want *, *.DOMAIN, HOST[:PORT] or HOST[:PORT]/PATH", s)
	}
	r, err := ref.Parse(host + "/" + path)
	if err != nil || r.Tag != "" || r.Digest != "" || r.Registry != host {
		return mistake("%q is no name of a registry or repository: want HOST[:PORT] or HOST[:PORT]/PATH, with docker.io for Docker Hub", s)
	}
	return nil
}

func checkRewrite(s string) error {
	host, path, two := strings.Cut(strings.ReplaceAll(s, RegistryPlaceholder, "x"), "/")
	if !two {
		path = "x"
	}
	r, err := ref.Parse(host + "/" + path)
	if err != nil || r.Registry != host || r.Tag != "" || r.Digest != "" {
		return mistake("%q is no name of a registry or repository: want HOST[:PORT] or HOST[:PORT]/PATH", s)
	}
	return nil
}

// checkRouteMirror takes URLs, and names as in references, which are spoken to over TLS.
func checkRouteMirror(s string) error {
	s = strings.ReplaceAll(s, RegistryPlaceholder, "x")
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	return checkMirror(s)
}

func checkFile(s string) error {
	if !filepath.IsAbs(s) {
		return mistake("%q: want an absolute path", s)
	}
	return checkLine(s)
}

func showRoutes(list []RegistryRoute) string {
	var out []string
	for _, r := range list {
		var what []string
		add := func(yes bool, s string) {
			if yes {
				what = append(what, s)
			}
		}
		add(r.Block != nil && *r.Block, "block")
		add(r.Block != nil && !*r.Block, "allow")
		add(r.Mirrors != nil, "mirrors "+strings.Join(r.Mirrors, " "))
		add(r.Rewrite != "", "rewrite "+r.Rewrite)
		add(r.Direct != nil && !*r.Direct, "mirrors only")
		add(r.Insecure, "insecure")
		add(r.HTTP, "http")
		add(r.CA != nil, "ca")
		add(r.Cert != "", "cert")
		out = append(out, r.Name+": "+strings.Join(what, ", "))
	}
	return strings.Join(out, "; ")
}

// HostsFile is a hosts.toml of containerd: where a registry is asked for, and how.
type HostsFile struct {
	Server HostEntry   // the registry itself; its URL may be empty
	Hosts  []HostEntry // what is asked before, in order
}

// HostEntry is one place in it.
type HostEntry struct {
	URL          string
	Capabilities []string    // "pull", "resolve" and "push"; nil is all
	CA           []string    // files, as they are written there
	Client       [][2]string // certificate and key; the key may be in the file of the certificate
	SkipVerify   bool
	Header       map[string][]string
	OverridePath bool // the URL's path is the API's, without /v2 behind it
	DialTimeout  time.Duration
}

// ParseHosts reads the text of a hosts.toml; name is what errors call it. Keys that are not known are passed over, as
// containerd does. Errors are of the kind ErrInvalid.
func ParseHosts(name string, text []byte) (*HostsFile, error) {
	root, err := parseTOML(text)
	if err != nil {
		p := &problems{file: name}
		p.add(0, err)
		return nil, p.err()
	}
	f := new(HostsFile)
	p := &problems{file: name}
	p.read(&f.Server, root)
	if v := root.get("server"); v != nil {
		if err := v.checked(&f.Server.URL, checkHostURL); err != nil {
			p.add(v.line, say("server", err))
		}
	}
	if hosts := root.get("host"); hosts != nil {
		if hosts.kind != isTable {
			p.add(hosts.line, mistake("host: want tables [host.\"URL\"]"))
			return nil, p.err()
		}
		for _, m := range hosts.members {
			e := HostEntry{URL: m.name}
			if err := checkHostURL(m.name); err != nil {
				p.add(m.value.line, err)
				continue
			}
			if m.value.kind != isTable {
				p.add(m.value.line, mistake("host.%q: want a table", m.name))
				continue
			}
			p.read(&e, m.value)
			f.Hosts = append(f.Hosts, e)
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// read takes the keys of one place.
func (p *problems) read(e *HostEntry, table *value) {
	for _, k := range []struct {
		name string
		set  func(*value) error
	}{
		{"capabilities", func(v *value) error {
			return v.strings(&e.Capabilities, func(s string) error {
				if !slices.Contains([]string{"pull", "resolve", "push", "referrers"}, s) {
					return mistake("unknown capability %q", s)
				}
				return nil
			})
		}},
		{"ca", func(v *value) error { return v.someStrings(&e.CA, checkLine) }},
		{"client", func(v *value) error { return v.pairs(&e.Client) }},
		{"skip_verify", func(v *value) error { return v.flag(&e.SkipVerify) }},
		{"override_path", func(v *value) error { return v.flag(&e.OverridePath) }},
		{"header", func(v *value) error { return v.header(&e.Header) }},
		{"dial_timeout", func(v *value) error {
			var d *time.Duration
			err := v.duration(&d, false)
			if err == nil {
				e.DialTimeout = *d
			}
			return err
		}},
	} {
		if v := table.get(k.name); v != nil {
			if err := k.set(v); err != nil {
				p.add(v.line, say(k.name, err))
			}
		}
	}
}

// pairs reads "FILE", ["FILE", ...] or [["CERT", "KEY"], ...].
func (v *value) pairs(to *[][2]string) error {
	if v.kind == isString {
		*to = [][2]string{{v.text, ""}}
		return nil
	}
	if v.kind != isList {
		return mistakeAt(v, "want files, not %s", v)
	}
	for _, x := range v.list {
		var files []string
		if err := x.someStrings(&files, checkLine); err != nil {
			return err
		}
		switch len(files) {
		case 1:
			*to = append(*to, [2]string{files[0], ""})
		case 2:
			*to = append(*to, [2]string{files[0], files[1]})
		default:
			return mistakeAt(x, "want the files of a certificate and its key")
		}
	}
	return nil
}

func (v *value) header(to *map[string][]string) error {
	if v.kind != isTable {
		return mistakeAt(v, "want a table of texts, not %s", v)
	}
	*to = map[string][]string{}
	for _, m := range v.members {
		var list []string
		if err := m.value.someStrings(&list, checkLine); err != nil {
			return say(m.name, errors.New("want texts of one line")) // what it is may be a secret
		}
		(*to)[m.name] = list
	}
	return nil
}

func checkHostURL(s string) error {
	at := s
	if !strings.Contains(at, "://") {
		at = "https://" + at
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errdef.Invalid("%q is no URL of a registry: want https://HOST[:PORT]", HidePassword(s))
	}
	return nil
}
