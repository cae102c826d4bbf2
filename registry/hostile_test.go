package registry

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"hull/errdef"
	"hull/registry/registrytest"
)

func TestNearness(t *testing.T) {
	for address, want := range map[string]int32{
		"1.1.1.1": public, "2606:4700::1": public, "10.1.2.3": private, "192.168.0.1": private, "172.16.0.1": private, "100.64.0.1": private,
		"fd12::1": private, "127.0.0.1": loopback, "127.9.9.9": loopback, "::1": loopback, "::ffff:127.0.0.1": loopback, "64:ff9b::7f00:1": loopback,
		"2002:7f00:1::": loopback, "169.254.169.254": special, "::ffff:169.254.169.254": special, "fe80::1%eth0": special, "0.0.0.0": special,
		"::": special, "224.0.0.1": special, "255.255.255.255": special, "fd00:ec2::254": special, "168.63.129.16": special, "64:ff9b::a9fe:a9fe": special,
	} {
		if got := nearness(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: want %d, got %d", address, want, got)
		}
	}
}

// A52: who is far cannot send us to what is near. The address is looked at behind its name.
func TestGuard(t *testing.T) {
	for _, c := range []struct {
		registry int32
		to       string
		ok       bool
	}{
		{public, "1.1.1.1:443", true}, {public, "10.0.0.1:443", false}, {public, "127.0.0.1:80", false}, {public, "169.254.169.254:80", false},
		{private, "10.0.0.1:443", true}, {private, "1.1.1.1:443", true}, {private, "127.0.0.1:80", false}, {private, "169.254.169.254:80", false},
		{loopback, "127.0.0.1:80", true}, {loopback, "10.0.0.1:80", true}, {loopback, "169.254.169.254:80", false}, {special, "169.254.1.1:80", true},
	} {
		n := new(network)
		n.reach.Store(c.registry)
		if err := n.guard(t.Context(), "tcp", c.to, nil); (err == nil) != c.ok {
			t.Errorf("from %d to %s: want allowed %v, got %v", c.registry, c.to, c.ok, err)
		}
	}
	// A name that means this machine, from a registry that is public as far as anybody knows.
	s, other := registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{})
	_, port, _ := strings.Cut(other.Addr, ":")
	d := s.AddBlob("app", random(100))
	other.AddBlob("app", random(100))
	s.On("GET", "/blobs/", registrytest.Redirect(http.StatusTemporaryRedirect, "http://localhost:"+port))
	r := open(t, s, Options{})
	for _, h := range r.hosts { // as if it had been reached at a public address
		h.net.home.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &farConn{conn}, err
		}
	}
	if _, _, err := readBlob(t, r, d, 0); err == nil || !strings.Contains(err.Error(), "nearer to us than itself") {
		t.Errorf("want refused, got %v", err)
	}
	if n := len(other.Requests()); n != 0 {
		t.Errorf("want no request there, got %d", n)
	}
}

// farConn is a connection to a public address, as far as it says itself.
type farConn struct{ net.Conn }

func (farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(1, 1, 1, 1), Port: 443} }

// TestNearnessIsEarned: whoever takes a connection at an address of ours, and cannot show that it is the registry, has not
// made the registry one of ours.
func TestNearnessIsEarned(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{TLS: true})
	for want, config := range map[int32]*tls.Config{public: {}, loopback: {InsecureSkipVerify: true}} {
		n := newNetwork(config, 0, nil)
		defer n.close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Addr+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.roundTrip(req, true)
		if (err == nil) != (want == loopback) {
			t.Fatalf("got %v", err)
		}
		if err == nil {
			resp.Body.Close()
		}
		if got := n.reach.Load(); got != want {
			t.Errorf("want the nearness %d, got %d", want, got)
		}
	}
}

// A51-A53, A56: what a registry answers cannot lead away, go on for ever or fill the memory, and no secret gets out.
func TestHostileAnswers(t *testing.T) {
	flood := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := range 1000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
			}
		})
	}
	echo := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			user, password, _ := q.BasicAuth()
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"%s %s %s \u001b[31m%s"}]}`, user, password, q.Header.Get("Authorization"), strings.Repeat("x", 10_000))
		})
	}
	packed := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusBadRequest)
			z := gzip.NewWriter(w)
			defer z.Close()
			for range 64 {
				z.Write(make([]byte, 1<<20))
			}
		})
	}
	elsewhere := registrytest.New(t, registrytest.Options{})
	realm := func(value string) registrytest.Effect {
		return registrytest.Status(401, "WWW-Authenticate", `Bearer realm="`+value+`",service="x"`)
	}
	for name, c := range map[string]struct {
		path   string
		effect registrytest.Effect
		want   string
	}{
		"headers":                  {"/manifests/", flood, "header"},
		"secrets sent back":        {"/manifests/", echo, "denied: "},
		"a huge error":             {"/manifests/", registrytest.Body(400, "text/plain", strings.Repeat("x", 10<<20)), "..."},
		"a huge error, packed":     {"/manifests/", packed, "400"},
		"to a file":                {"/manifests/", registrytest.Status(307, "Location", "file:///etc/passwd"), `scheme "file"`},
		"to a user":                {"/manifests/", registrytest.Status(307, "Location", "http://a:b@127.0.0.1/"), "with a user in it"},
		"to nowhere":               {"/manifests/", registrytest.Status(307), "to nowhere"},
		"tokens of a file":         {"/manifests/", realm("file:///etc/passwd"), `scheme "file"`},
		"tokens of a link-local":   {"/manifests/", realm("http://169.254.169.254/token"), "nearer to us than itself"},
		"tokens nowhere":           {"/manifests/", registrytest.Status(401, "WWW-Authenticate", "Bearer"), "does not say where"},
		"tokens that redirect":     {"/token", registrytest.Redirect(307, elsewhere.HTTP.URL), "redirects the request for a token"},
		"a token with a line feed": {"/token", registrytest.Body(200, "application/json", `{"token":"a\nb"}`), "no token"},
		"a huge token":             {"/token", registrytest.Body(200, "application/json", `{"token":"`+strings.Repeat("a", 1<<20)+`"}`), "no token"},
		"silence":                  {"/manifests/", registrytest.Hang(-1), "silent"},
		"silence in the middle":    {"/manifests/", registrytest.Hang(10), "silent"},
		"too many for an hour":     {"/manifests/", registrytest.TooMany("3600"), "toomanyrequests"},
	} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.New(t, registrytest.Options{User: "me", Password: canary, Bearer: true})
			s.AddImage("app", "1", registrytest.Platform{}, nil)
			s.On("", c.path, c.effect)
			var told notices
			idle := time.Minute
			if strings.HasPrefix(name, "silence") {
				idle = 100 * time.Millisecond
			}
			r := open(t, s, Options{Credential: login, Idle: idle, Notice: told.add})
			_, _, err := r.Manifest(t.Context(), "1")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
			for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), told.String()} {
				if strings.Contains(text, canary) || strings.Contains(text, basic("me", canary)) || strings.Contains(text, "token-1-") || strings.Contains(text, "\x1b") || len(text) > 4000 {
					t.Errorf("want neither a secret nor a control character nor a flood, got %s", text)
				}
			}
		})
	}
	for _, q := range elsewhere.Requests() {
		t.Errorf("want nothing asked elsewhere, got %+v", q)
	}
}

// A51, A52: an upload is not continued at another host.
func TestUploadStaysHere(t *testing.T) {
	s, b := registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{})
	s.On("POST", "/uploads/", registrytest.Status(202, "Location", b.HTTP.URL+"/v2/app/blobs/uploads/1"))
	err := open(t, s, Options{Push: true}).Upload(t.Context(), registrytest.Digest([]byte("x")), 1, nil)
	if err == nil || !strings.Contains(err.Error(), "another host") {
		t.Errorf("want refused, got %v", err)
	}
	s.Heal()
	s.On("PUT", "/uploads/", registrytest.Status(403))
	data := random(10)
	err = open(t, s, Options{Push: true}).Upload(t.Context(), registrytest.Digest(data), 10, source(data))
	if !errors.Is(err, errdef.ErrForbidden) || !strings.Contains(err.Error(), "access to "+s.Addr+"/app denied") {
		t.Errorf("want denied, got %v", err)
	}
	if n := len(b.Requests()); n != 0 {
		t.Errorf("want no request elsewhere, got %d", n)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "99999999999999": 0, "Mon, 23 Nov 2026 12:00:09 GMT": 9 * time.Second, "Mon, 23 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("%q: want %s, got %s", in, want, got)
		}
	}
}

func TestChallenges(t *testing.T) {
	for in, want := range map[string][]challenge{
		`Basic realm="a b"`: {{"basic", map[string]string{"realm": "a b"}}},
		`Bearer realm="https://t/x",service="s",scope="repository:a:pull,push"`: {{"bearer", map[string]string{"realm": "https://t/x", "service": "s", "scope": "repository:a:pull,push"}}},
		`Bearer realm=https://t/x, service = s`:                                 {{"bearer", map[string]string{"realm": "https://t/x", "service": "s"}}},
		`Negotiate, Basic realm="x\"y", Bearer realm=z`:                         {{"negotiate", map[string]string{}}, {"basic", map[string]string{"realm": `x"y`}}, {"bearer", map[string]string{"realm": "z"}}},
		`Basic realm="unfinished`:                                               {{"basic", map[string]string{}}},
		``:                                                                      nil,
		`,,,`:                                                                   nil,
	} {
		if got := parseChallenges([]string{in}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: want %v, got %v", in, want, got)
		}
	}
}

func TestNextLink(t *testing.T) {
	for in, want := range map[string]string{
		`</v2/a?n=1>; rel="next"`: "/v2/a?n=1", `<a>; rel=prev, <b>; rel=next`: "b", `<a>; title="x, y"; rel="up next"`: "a", `<a>`: "", `a; rel=next`: "", `<a; rel=next`: "", `<a>; rel="nextish"`: "",
	} {
		if got := nextLink([]string{in}); got != want {
			t.Errorf("%s: want %q, got %q", in, want, got)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://t/x",service="s",scope="repository:a:pull,push"`)
	f.Add(`Negotiate, Basic realm="x\"y", Bearer realm=z`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges([]string{s, s}) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("%q: scheme %q", s, c.scheme)
			}
		}
	})
}

func FuzzNextLink(f *testing.F) {
	f.Add(`<a>; title="x, y"; rel="up next", <b>; rel=prev`)
	f.Fuzz(func(t *testing.T, s string) {
		if next := nextLink([]string{s}); !strings.Contains(s, next) {
			t.Errorf("%q: %q is no part of it", s, next)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Add("bytes 0-0/*")
	f.Fuzz(func(t *testing.T, s string) {
		first, size, ok := contentRange(s)
		if ok && (first < 0 || size >= 0 && first >= size) {
			t.Errorf("%q: %d of %d", s, first, size)
		}
	})
}
