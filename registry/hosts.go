package registry

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hull/config"
	"hull/errdef"
	"hull/ref"
)

// The directories of containerd and Docker, one for each registry: hosts.toml says where and how it is asked for,
// *.crt vouch for it, *.cert with *.key are shown to it.

// maxHostsFile bounds a hosts.toml and a certificate.
const maxHostsFile = 1 << 20

// hostsFile is a hosts.toml with where it was found.
type hostsFile struct {
	*config.HostsFile
	path string
}

// directories are where a registry may have its directory, the most particular first.
func (s *Routes) directories(registry string, names ...string) (out []string) {
	// containerd writes a port as host_port_ where a colon is no name of a directory, and takes either.
	if host, port, ok := strings.Cut(registry, ":"); ok && !strings.Contains(port, ":") {
		names = append([]string{host + "_" + port + "_"}, names...)
	}
	names = append([]string{registry}, names...)
	for _, name := range names {
		for _, dir := range s.dirs {
			out = append(out, filepath.Join(dir, name))
		}
	}
	return out
}

// hostsFile finds the hosts.toml of a registry, or that of all; nil is none.
func (s *Routes) hostsFile(registry string) (*hostsFile, error) {
	for _, dir := range s.directories(registry, "_default") {
		path := filepath.Join(dir, "hosts.toml")
		text, err := readSmall(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // what an ordinary user may not read is root's affair
		}
		if err != nil {
			return nil, fmt.Errorf("read the hosts of %s: %w", registry, err)
		}
		f, err := config.ParseHosts(path, text)
		if err != nil {
			return nil, err
		}
		return &hostsFile{f, path}, nil
	}
	return nil, nil
}

// readSmall follows links, as those who fill such directories make them.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHostsFile+1))
	if err == nil && len(b) > maxHostsFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxHostsFile)
	}
	return b, err
}

// fromFile is the route that a hosts.toml makes.
func (s *Routes) fromFile(f *hostsFile, r ref.Ref) (*Route, error) {
	route := new(Route)
	for _, e := range f.Hosts {
		h, err := s.entry(f, e, r)
		if err != nil {
			return nil, err
		}
		h.Mirror = h.Addr != r.Registry
		route.Hosts = append(route.Hosts, h)
	}
	if f.Server.URL == "" {
		// The registry itself, with what the file says of it.
		up := s.upstream(r)
		for i := range up {
			s.with(&up[i], f, f.Server)
			up[i].Why += ", as " + f.path + " has it"
		}
		route.Hosts = append(route.Hosts, up...)
		return route, nil
	}
	h, err := s.entry(f, f.Server, r)
	if err != nil {
		return nil, err
	}
	h.Why = "server of " + f.path
	route.Hosts = append(route.Hosts, h)
	return route, nil
}

// entry is one place that a hosts.toml names.
func (s *Routes) entry(f *hostsFile, e config.HostEntry, r ref.Ref) (Host, error) {
	at := e.URL
	if !strings.Contains(at, "://") {
		at = "https://" + at
	}
	u, err := url.Parse(at)
	if err != nil {
		return Host{}, errdef.Invalid("%s: %q is no URL", f.path, e.URL)
	}
	path := strings.TrimRight(u.Path, "/")
	if !e.OverridePath && !strings.HasSuffix(path, "/v2") {
		path += "/v2"
	}
	h := Host{Scheme: u.Scheme, Addr: u.Host, Path: path, Repo: r.Repo, Login: u.Host, Why: "host of " + f.path, Pull: true, Resolve: true, Push: true}
	if h.Addr == r.Registry || r.Registry == ref.DefaultRegistry && h.Addr == HubAddr {
		h.Login = r.Registry
	}
	s.certificates(&h)
	s.with(&h, f, e)
	return h, nil
}

// with adds what a hosts.toml says of a place.
func (s *Routes) with(h *Host, f *hostsFile, e config.HostEntry) {
	dir := filepath.Dir(f.path)
	abs := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	if e.Capabilities != nil {
		h.Pull, h.Resolve, h.Push = slices.Contains(e.Capabilities, "pull"), slices.Contains(e.Capabilities, "resolve"), slices.Contains(e.Capabilities, "push")
	}
	h.Insecure = h.Insecure || e.SkipVerify
	for _, ca := range e.CA {
		h.CA = append(h.CA, abs(ca))
	}
	for _, pair := range e.Client {
		h.Client = append(h.Client, [2]string{abs(pair[0]), abs(pair[1])})
	}
	for k, v := range e.Header {
		if h.Header == nil {
			h.Header = http.Header{}
		}
		h.Header[http.CanonicalHeaderKey(k)] = v
	}
	h.DialTimeout = cmp.Or(e.DialTimeout, h.DialTimeout)
}

// certificates adds those of the host's directory.
func (s *Routes) certificates(h *Host) {
	for _, dir := range s.directories(h.Login) {
		list, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range list {
			path := filepath.Join(dir, e.Name())
			switch filepath.Ext(path) {
			case ".crt":
				h.CA = append(h.CA, path)
			case ".cert":
				h.Client = append(h.Client, [2]string{path, strings.TrimSuffix(path, ".cert") + ".key"})
			}
		}
		return
	}
}

// tlsConfig reads the certificates.
func (h *Host) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.Insecure}
	if len(h.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, path := range h.CA {
			pem, err := readSmall(path)
			if err != nil {
				return nil, errdef.Invalid("certificate that vouches for %s: %w", h.Addr, err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, errdef.Invalid("%s has no certificate in PEM", path)
			}
		}
		c.RootCAs = pool
	}
	for _, pair := range h.Client {
		cert, err := tls.LoadX509KeyPair(pair[0], cmp.Or(pair[1], pair[0]))
		if err != nil { // says nothing of the key but its path
			return nil, errdef.Invalid("our certificate for %s, %s: %w", h.Addr, pair[0], err)
		}
		c.Certificates = append(c.Certificates, cert)
	}
	return c, nil
}
