package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/ref"
)

// Report is a route and what each of its hosts answers.
type Report struct {
	Name    string // of the repository, in full
	Tag     string // or digest
	Blocked string // why nobody is asked
	Hosts   []HostReport
	Serves  string // the first that has it, "" when none does
}

// HostReport is one place of a route.
type HostReport struct {
	URL    string // where the repository is
	Why    string // which rule put it here
	Mirror bool
	Can    []string // pull, resolve, push
	Login  string   // what its credentials are kept under
	User   string   // of those that came with the request; "" is nobody
	Proxy  string   // that it is asked through
	Steps  []Step   // none when it was not asked
}

// Step is one thing that was tried. Those after one that failed are left out.
type Step struct {
	Name  string // dns, tcp, tls, api, login, manifest
	OK    bool
	Found string // a sentence
	Took  time.Duration
}

// stepTime bounds each step.
const stepTime = 15 * time.Second

// Describe is the route of r; nobody is asked anything.
func Describe(r ref.Ref, o Options) (*Report, error) {
	report, _, err := describe(r, o)
	return report, err
}

func describe(r ref.Ref, o Options) (*Report, []*host, error) {
	route, err := o.Routes.Route(r)
	if err != nil {
		return nil, nil, err
	}
	report := &Report{Name: r.Name(), Tag: r.Tag, Blocked: route.Blocked}
	if r.Digest != "" {
		report.Tag = string(r.Digest)
	}
	var hosts []*host
	for _, place := range route.Hosts {
		h, err := newHost(place, o)
		if err != nil {
			return nil, nil, err
		}
		h.tries = 1
		hosts = append(hosts, h)
		report.Hosts = append(report.Hosts, h.describe(o))
	}
	return report, hosts, nil
}

func (h *host) describe(o Options) HostReport {
	p := &h.place
	out := HostReport{URL: h.repo().String(), Why: p.Why, Mirror: p.Mirror, Login: p.Login}
	for _, c := range []struct {
		yes  bool
		word string
	}{{p.Pull, "pull"}, {p.Resolve, "resolve"}, {p.Push, "push"}} {
		if c.yes {
			out.Can = append(out.Can, c.word)
		}
	}
	switch c := &h.auth.credential; {
	case c.Username != "":
		out.User = c.Username
	case c.IdentityToken != "" || c.RegistryToken != "":
		out.User = "(token)"
	}
	if o.Proxy != nil {
		if via, err := o.Proxy(&http.Request{URL: h.url()}); err == nil && via != nil {
			out.Proxy = via.Redacted()
		}
	}
	return out
}

// Test asks each host of the route of r for its manifest, whether or not one before it has it, and tells how far that
// gets. An error is one of the route; what hosts say stands in the report.
func Test(ctx context.Context, r ref.Ref, o Options) (*Report, error) {
	r = r.Tagged()
	report, hosts, err := describe(r, o)
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		out := &report.Hosts[i]
		if h.probe(ctx, out, report.Tag); len(out.Steps) > 0 && out.Steps[len(out.Steps)-1].OK && slices.Contains(out.Can, "pull") && report.Serves == "" {
			report.Serves = h.place.Addr
		}
		h.close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return report, nil
}

// probe goes step by step and stops at the first that fails.
func (h *host) probe(ctx context.Context, out *HostReport, reference string) {
	var conn net.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	steps := []struct {
		name string
		try  func(context.Context) (string, error)
	}{
		{"dns", h.probeDNS},
		{"tcp", func(ctx context.Context) (found string, err error) {
			conn, found, err = h.probeTCP(ctx)
			return found, err
		}},
		{"tls", func(ctx context.Context) (string, error) { return h.probeTLS(ctx, conn) }},
		{"api", h.probeAPI},
		{"login", h.probeLogin},
		{"manifest", func(ctx context.Context) (string, error) {
			data, mediaType, err := h.manifest(ctx, reference)
			return fmt.Sprintf("%s, %s, %d bytes", Digest(data), mediaType, len(data)), err
		}},
	}
	for _, s := range steps {
		if out.Proxy != "" && (s.name == "dns" || s.name == "tcp" || s.name == "tls") || s.name == "tls" && h.place.Scheme == "http" {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, stepTime, fmt.Errorf("no answer within %s", stepTime))
		begin := time.Now()
		found, err := s.try(ctx)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			found = h.text(err.Error())
		}
		cancel()
		if err == nil && found == "" {
			continue // nothing to do
		}
		out.Steps = append(out.Steps, Step{Name: s.name, OK: err == nil, Found: found, Took: time.Since(begin)})
		if err != nil {
			return
		}
	}
}

func (h *host) probeDNS(ctx context.Context) (string, error) {
	name := hostname(h.place.Addr)
	if _, err := netip.ParseAddr(name); err == nil {
		return "", nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return "", err
	}
	var list []string
	for _, a := range addrs {
		list = append(list, a.Unmap().String())
	}
	return name + " is " + strings.Join(list, ", "), nil
}

func (h *host) probeTCP(ctx context.Context) (net.Conn, string, error) {
	u := h.url()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port(u)))
	if err != nil {
		return nil, "", err
	}
	return conn, "connected to " + conn.RemoteAddr().String(), nil
}

func (h *host) probeTLS(ctx context.Context, conn net.Conn) (string, error) {
	c, err := h.place.tlsConfig()
	if err != nil {
		return "", err
	}
	c.ServerName = hostname(h.place.Addr)
	t := tls.Client(conn, c)
	if err := t.HandshakeContext(ctx); err != nil {
		var record tls.RecordHeaderError
		if errors.As(err, &record) {
			err = errors.New("it does not speak TLS")
		}
		return "", err
	}
	s := t.ConnectionState()
	found := tls.VersionName(s.Version)
	if len(s.PeerCertificates) > 0 {
		cert := s.PeerCertificates[0]
		found += ", certificate of " + h.text(cert.Issuer.String()) + " until " + cert.NotAfter.UTC().Format(time.DateOnly)
	}
	if h.place.Insecure {
		found += ", not verified"
	}
	return found, nil
}

func (h *host) probeAPI(ctx context.Context) (string, error) {
	resp, err := h.follow(ctx, h.get(h.url("/"), ""), "")
	if err != nil {
		return "", err
	}
	defer drop(resp)
	switch resp.StatusCode {
	case http.StatusOK:
		return "answers without a login", nil
	case http.StatusUnauthorized:
	default:
		return "", h.answerError(resp)
	}
	var ways []string
	for _, c := range parseChallenges(resp.Header.Values("WWW-Authenticate")) {
		way := c.scheme
		if u, err := url.Parse(c.params["realm"]); err == nil && c.scheme == "bearer" {
			way = "a token of " + u.Host
		}
		ways = append(ways, h.text(way))
	}
	if len(ways) == 0 {
		return "", errors.New("asks for a login and does not say which")
	}
	return "asks for " + strings.Join(ways, " or "), nil
}

// probeLogin gets what a pull would begin with.
func (h *host) probeLogin(ctx context.Context) (string, error) {
	resp, err := h.follow(ctx, h.get(h.url("/"), ""), "")
	if err != nil {
		return "", err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusUnauthorized {
		return "", nil
	}
	who := "as anybody"
	if u := h.auth.credential.Username; u != "" {
		who = "as " + u
	} else if h.auth.credential != (Credential{}) {
		who = "with the token that is kept"
	}
	authorization, err := h.auth.answer(ctx, resp.Header.Values("WWW-Authenticate"), h.pullScope(), "")
	switch {
	case err != nil:
		return "", err
	case authorization == "":
		return "", errdef.As(errdef.ErrUnauthorized, errors.New("wants a name and a password: hull login "+h.place.Login))
	case strings.HasPrefix(authorization, "Bearer"):
		return "got a token " + who, nil
	}
	return who, nil
}
