package registry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestDownload(t *testing.T) {
	var told []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		told = append(told, q.Header.Get("Authorization"))
		io.WriteString(w, "hello")
	}))
	defer other.Close()
	handler := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/other":
			http.Redirect(w, q, other.URL+"/x?key=secret", http.StatusFound)
		case "/metadata":
			http.Redirect(w, q, "http://169.254.169.254/latest?key=secret", http.StatusFound)
		case "/silent":
			w.(http.Flusher).Flush()
			<-q.Context().Done()
		default:
			if _, password, _ := q.BasicAuth(); password != canary {
				w.WriteHeader(http.StatusForbidden)
			}
			io.WriteString(w, "hello")
		}
	})
	s := httptest.NewServer(handler)
	defer s.Close()
	as := strings.Replace(s.URL, "http://", "http://me:"+canary+"@", 1)
	get := func(address string) (string, error) {
		resp, err := Download(t.Context(), address, Options{Idle: 200 * time.Millisecond})
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", address, resp.Status)
		}
		return string(data), err
	}
	for _, path := range []string{"/", "/other"} {
		if got, err := get(as + path); got != "hello" || err != nil {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
	if len(told) != 1 || told[0] != "" {
		t.Errorf("the other server was told %q", told)
	}
	for address, want := range map[string]string{
		as + "/metadata":                    "nearer to us than itself",
		as + "/silent":                      "silent",
		"file:///etc/passwd":                "no address",
		"ftp://me:" + canary + "@localhost": "no address",
		"http://[bad":                       "no address",
	} {
		_, err := get(address)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: want %q and no secret, got %v", address, want, err)
		}
	}
	secure := httptest.NewTLSServer(handler)
	defer secure.Close()
	if _, err := get(secure.URL); !isCertificate(err) {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
}
