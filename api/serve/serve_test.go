package serve

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hull/errdef"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// TestMain lets a test start a server in a process of its own: what systemd and kill do is done to processes.
func TestMain(m *testing.M) {
	if host := os.Getenv("SERVE_TEST"); host != "" {
		idle, _ := time.ParseDuration(os.Getenv("SERVE_IDLE"))
		if os.Getenv("SERVE_PID") != "" { // systemd knows the pid after its fork
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		}
		err := Run(context.Background(), http.HandlerFunc(hello), Options{Hosts: strings.Fields(host), Idle: idle, Plain: os.Getenv("SERVE_PLAIN") != "", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if err != nil {
			io.WriteString(os.Stderr, err.Error()+"\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func hello(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/slow" {
		w.(http.Flusher).Flush()
		time.Sleep(300 * time.Millisecond)
	}
	io.WriteString(w, "hello")
}

// process is a server in another process.
type process struct {
	*exec.Cmd
	stderr bytes.Buffer
	ended  chan error
}

func start(t *testing.T, host string, env ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0]), ended: make(chan error, 1)}
	p.Env = append(append(os.Environ(), "SERVE_TEST="+host), env...)
	p.Stderr = &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	t.Cleanup(func() { p.Process.Kill() })
	return p
}

func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the server does not end")
		return nil
	}
}

func over(network, address string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
}

// get asks until somebody answers.
func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		resp, err := c.Get(url)
		if err != nil {
			if time.Now().After(end) {
				t.Fatal(err)
			}
			continue
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "s")
	first := start(t, "unix://"+path)
	if got := get(t, over("unix", path), "http://x/"); got != "hello" {
		t.Errorf("got %q", got)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v: want mode 0600 without a group", st.Mode(), err)
	}

	// A living server is not replaced, and the refusal says who it is.
	second := start(t, "unix://"+path)
	if second.wait(t) == nil || !strings.Contains(second.stderr.String(), "is served already, by process "+strconv.Itoa(first.Process.Pid)) {
		t.Errorf("second server: %s", &second.stderr)
	}
	if got := get(t, over("unix", path), "http://x/"); got != "hello" {
		t.Errorf("got %q", got)
	}

	// What a killed one left is.
	first.Process.Kill()
	first.wait(t)
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a killed server left no socket: %v", err)
	}
	third := start(t, "unix://"+path)
	get(t, over("unix", path), "http://x/")

	// Told to end, it finishes what it has begun and takes its socket away.
	got := make(chan string, 1)
	resp, err := over("unix", path).Get("http://x/slow")
	if err != nil {
		t.Fatal(err)
	}
	third.Process.Signal(unix.SIGTERM)
	go func() {
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	if err := third.wait(t); err != nil {
		t.Errorf("end by SIGTERM: %v\n%s", err, &third.stderr)
	}
	if s := <-got; s != "hello" {
		t.Errorf("a request in progress got %q", s)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestRace: of many servers that find the same dead socket exactly one serves.
func TestRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := bind(path, "") // which leaves the file when it is closed
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	var mu sync.Mutex
	var won []net.Listener
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			l, err := listenUnix(path, "")
			if err != nil {
				if !errors.Is(err, errdef.ErrConflict) {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			won = append(won, l)
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d servers listen, want 1", len(won))
	}
	won[0].Close()
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 0 {
		t.Errorf("left behind: %v (%v)", names, err)
	}
}

func TestNotOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, ""); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("listen on a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file is gone")
	}
}

// TestActivation passes a socket as systemd does; the server ends when it is idle and leaves the socket.
func TestActivation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // one server after the other on the same socket
		p := &process{Cmd: exec.Command(os.Args[0]), ended: make(chan error, 1)}
		p.Env = append(os.Environ(), "SERVE_TEST=fd://", "SERVE_IDLE=200ms", "SERVE_PID=1", "LISTEN_FDS=1")
		p.ExtraFiles, p.Stderr = []*os.File{f}, &p.stderr
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { p.ended <- p.Wait() }()
		if got := get(t, over("unix", path), "http://x/slow"); got != "hello" {
			t.Errorf("got %q", got)
		}
		if err := p.wait(t); err != nil {
			t.Errorf("idle exit: %v\n%s", err, &p.stderr)
		}
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
	p := start(t, "fd://")
	if p.wait(t) == nil || !strings.Contains(p.stderr.String(), "LISTEN_PID") {
		t.Errorf("fd:// without systemd: %s", &p.stderr)
	}
}

// TestLockedDirectory: whoever can open the directory of the socket cannot keep a server from starting.
func TestLockedDirectory(t *testing.T) {
	dir := t.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	l, err := listenUnix(filepath.Join(dir, "s"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(filepath.Join(dir, "s"), ""); !errors.Is(err, errdef.ErrConflict) || !strings.Contains(err.Error(), "is served already, by process") {
		t.Errorf("a second server: %v", err)
	}
	l.Close()
	// Somebody else's lock file is not waited for.
	if os.Geteuid() != 0 {
		return
	}
	lock := filepath.Join(dir, ".s.lock")
	if err := errors.Join(os.WriteFile(lock, nil, 0o666), os.Chown(lock, 12345, -1)); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(filepath.Join(dir, "s"), ""); !errors.Is(err, errdef.ErrForbidden) {
		t.Errorf("with another user's lock file: %v", err)
	}
}

// TestGroupByDescriptor: what somebody puts in place of the socket gets neither group nor mode.
func TestGroupByDescriptor(t *testing.T) {
	rig.Root(t)
	dir := t.TempDir()
	precious, path := filepath.Join(dir, "precious"), filepath.Join(dir, "s")
	if err := errors.Join(os.WriteFile(precious, nil, 0o600), os.Symlink(precious, path)); err != nil {
		t.Fatal(err)
	}
	if err := give(path, "daemon"); err == nil {
		t.Error("a symbolic link was taken for the socket")
	}
	if st, err := os.Stat(precious); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file behind the link has the mode %v, %v", st.Mode(), err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l, err := bind(path, "daemon")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 || st.Sys().(*syscall.Stat_t).Gid == 0 {
		t.Errorf("the socket is %v, %v", st, err)
	}
}

// TestActivationByName: sockets of systemd that nobody asks for are closed, and two names can be asked for.
func TestActivationByName(t *testing.T) {
	dir := t.TempDir()
	var files []*os.File
	var paths []string
	for _, name := range []string{"one", "two", "three"} {
		path := filepath.Join(dir, name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		f, err := l.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		files, paths = append(files, f), append(paths, path)
	}
	p := &process{Cmd: exec.Command(os.Args[0]), ended: make(chan error, 1)}
	p.Env = append(os.Environ(), "SERVE_TEST=fd://three fd://one", "SERVE_PID=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=one:two:three")
	p.ExtraFiles, p.Stderr = files, &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	t.Cleanup(func() { p.Process.Kill() })
	for _, f := range files {
		f.Close()
	}
	for _, i := range []int{0, 2} {
		if got := get(t, over("unix", paths[i]), "http://x/"); got != "hello" {
			t.Errorf("%s: got %q", paths[i], got)
		}
	}
	if conn, err := net.Dial("unix", paths[1]); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the socket that nobody asked for: %v, %v", conn, err)
	}
}

func TestTCP(t *testing.T) {
	s := &server{log: slog.New(slog.DiscardHandler)}
	if l, err := s.listenTCP("127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "--tls=false") {
		t.Errorf("loopback without TLS, and nobody said so: %v, %v", l, err)
	}
	s.o.Plain = true
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:2375", "example.com:1", "127.0.0.1"} {
		if l, err := s.listenTCP(address); err == nil {
			l.Close()
			t.Errorf("listens on %s without TLS", address)
		}
	}
	l, err := s.listenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	start(t, "tcp://"+address, "SERVE_PLAIN=1")
	if got := get(t, over("tcp", address), "http://"+address+"/"); got != "hello" {
		t.Errorf("got %q", got)
	}
	if got := get(t, over("tcp", address), "http://evil.example/"); !strings.Contains(got, "host name are refused") {
		t.Errorf("a rebound name got %q", got)
	}
}

// TestTLS serves only who has a certificate of the authority.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "client", ca, caKey)
	other, otherKey := certificate(t, dir, "otherca", nil, nil)
	certificate(t, dir, "stranger", other, otherKey)
	s := &server{log: slog.New(slog.DiscardHandler), o: Options{TLS: TLS{CA: dir + "/ca.pem", Cert: dir + "/server.pem", Key: dir + "/server.key"}}}
	l, err := s.listenTCP("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s.counted(http.HandlerFunc(hello)), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go srv.Serve(l)
	defer srv.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for who, welcome := range map[string]bool{"client": true, "stranger": false, "": false} {
		cfg := &tls.Config{RootCAs: roots}
		if who != "" {
			cert, err := tls.LoadX509KeyPair(dir+"/"+who+".pem", dir+"/"+who+".key")
			if err != nil {
				t.Fatal(err)
			}
			cfg.Certificates = []tls.Certificate{cert}
		}
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
		resp, err := c.Get("https://127.0.0.1:" + port + "/")
		if (err == nil) != welcome {
			t.Errorf("client %q: %v, want welcome %v", who, err, welcome)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
	s.o.TLS.CA = ""
	if _, err := s.listenTCP("0.0.0.0:0"); err == nil {
		t.Error("TLS without an authority of clients")
	}
}

// certificate writes name.pem and name.key, signed by parent or by itself.
func certificate(t *testing.T, dir, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out, key
}
