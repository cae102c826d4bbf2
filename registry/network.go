package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// network is the connections to one host of a route, and to where that host sends us.
type network struct {
	home  *http.Transport // to the host itself, which somebody chose
	away  *http.Transport // to where it sends us, as far as that is no nearer to us than the host
	proxy func(*http.Request) (*url.URL, error)
	reach atomic.Int32 // of the host itself, known when a connection to it exists
}

const (
	dialTimeout = 15 * time.Second
	maxHeader   = 256 << 10
	atOnce      = 16 // idle connections that are kept
)

func newNetwork(home *tls.Config, dial time.Duration, proxy func(*http.Request) (*url.URL, error)) *network {
	n := &network{proxy: proxy}
	if dial <= 0 {
		dial = dialTimeout
	}
	n.home = newTransport(home, &net.Dialer{Timeout: dial})
	n.home.Proxy = proxy
	// Certificates of the host's own authority are good for its storage too; our certificate is shown to nobody else, and
	// what nobody vouches for is trusted nowhere else.
	away := home.Clone()
	away.Certificates, away.InsecureSkipVerify = nil, false
	n.away = newTransport(away, &net.Dialer{Timeout: dial, ControlContext: n.guard})
	return n
}

func newTransport(t *tls.Config, d *net.Dialer) *http.Transport {
	return &http.Transport{
		DialContext: d.DialContext, TLSClientConfig: t, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: maxHeader, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute,
		DisableCompression: true, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
	}
}

func (n *network) close() {
	n.home.CloseIdleConnections()
	n.away.CloseIdleConnections()
}

// roundTrip sends the request to the host, or away from it.
func (n *network) roundTrip(req *http.Request, home bool) (*http.Response, error) {
	if home {
		return n.home.RoundTrip(n.credited(req))
	}
	if n.proxy != nil {
		if via, err := n.proxy(req); err != nil || via != nil {
			// The proxy finds the address; only one that stands in the URL can be looked at.
			if a, err := netip.ParseAddr(req.URL.Hostname()); err == nil {
				if err := n.allowed(a); err != nil {
					return nil, err
				}
			}
			away := n.away.Clone()
			away.DialContext, away.Proxy = (&net.Dialer{Timeout: dialTimeout}).DialContext, n.proxy
			away.DisableKeepAlives = true
			return away.RoundTrip(req)
		}
	}
	return n.away.RoundTrip(req)
}

// How near to us an address is. Who is reached at one may send us to the same or a farther one.
const (
	public   int32 = iota
	private        // of the site
	loopback       // of this machine
	special        // of the link: there the metadata of clouds lives
)

func nearness(a netip.Addr) int32 {
	a = a.Unmap().WithZone("")
	if b := a.As16(); a.Is6() {
		switch {
		case inPrefix(a, "64:ff9b::/96"): // NAT64
			return nearness(netip.AddrFrom4([4]byte(b[12:16])))
		case inPrefix(a, "2002::/16"): // 6to4
			return nearness(netip.AddrFrom4([4]byte(b[2:6])))
		}
	}
	switch {
	case a.IsLoopback():
		return loopback
	case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), inPrefix(a, "0.0.0.0/8"), inPrefix(a, "240.0.0.0/4"),
		inPrefix(a, "fd00:ec2::/32"), inPrefix(a, "100.100.100.200/32"), inPrefix(a, "168.63.129.16/32"):
		return special
	case a.IsPrivate(), inPrefix(a, "100.64.0.0/10"):
		return private
	}
	return public
}

func inPrefix(a netip.Addr, prefix string) bool {
	p, err := netip.ParsePrefix(prefix)
	return err == nil && p.Contains(a)
}

// credited lets the host have the nearness of the address that answers the request. A connection says that when it is
// used, which is after its TLS handshake: whoever only accepts one at an address of ours, because a name leads there for a
// moment, is not the host. The address of a proxy says nothing of the host's.
func (n *network) credited(req *http.Request) *http.Request {
	if n.proxy != nil {
		if via, err := n.proxy(req); err != nil || via != nil {
			return req
		}
	}
	return req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { n.reached(c.Conn.RemoteAddr()) },
	}))
}

func (n *network) reached(a net.Addr) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return
	}
	if got := nearness(tcp.AddrPort().Addr()); got > n.reach.Load() {
		n.reach.Store(got)
	}
}

// guard looks at an address behind its name just before it is connected to, so that no second look-up finds another.
func (n *network) guard(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return n.allowed(ap.Addr())
}

func (n *network) allowed(a netip.Addr) error {
	want, have := nearness(a), n.reach.Load()
	if want <= have && (want != special || have == special) {
		return nil
	}
	return &finalError{fmt.Errorf("the registry sends us to the %s address %s, which is nearer to us than itself: refused",
		[...]string{"public", "private", "loopback", "link-local or reserved"}[want], a)}
}

// isCertificate says of an error that the other end is not who it should be.
func isCertificate(err error) bool {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid)
}

// isNobody says that there is no such host, or no way to ask for it, or that it does not speak TLS.
func isNobody(err error) bool {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	return errors.As(err, &dns) && !dns.IsTimeout && !dns.IsTemporary || errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch)
}

// isRefused says that nobody listens, or that there is no way there.
func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}

// isUnresolvable says that the name of a host could not be asked for: no server of names was there, or it kept silent, for
// which the resolver has waited twice.
func isUnresolvable(err error) bool {
	var dns *net.DNSError
	if !errors.As(err, &dns) {
		return false
	}
	// It keeps the text of its cause only.
	return dns.IsTimeout || endsWith(dns.Err, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.EHOSTUNREACH, syscall.ECONNREFUSED)
}

// isCutOff says that this machine has no network that leads to the host, or to a server of names. EADDRNOTAVAIL is what
// loopback answers while it is down: without an /etc/resolv.conf the server of names is asked for there.
func isCutOff(err error) bool {
	var dns *net.DNSError
	return errors.Is(err, syscall.ENETUNREACH) || errors.As(err, &dns) && endsWith(dns.Err, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL)
}

func endsWith(text string, errs ...syscall.Errno) bool {
	return slices.ContainsFunc(errs, func(e syscall.Errno) bool { return strings.HasSuffix(text, e.Error()) })
}
