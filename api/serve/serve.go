// Package serve serves the Engine API on sockets, for clients that are other programs: Docker's own, its libraries, and
// people without the rights that running containers needs.
//
//	err := serve.Run(ctx, handler, serve.Options{Hosts: []string{"unix:///run/hull/hull.sock"}})
//
// The server holds no state: killed at any instruction it leaves a socket file that the next one replaces, and
// containers that go on. Commands in other processes and clients of any number of servers work on the same store.
//
// Beware: who can connect is root. A unix socket is for its owner and a group; TCP is for whoever shows a certificate that
// the given authority signed, or, if a person says so, for all of loopback.
package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// Limits against clients that stall.
const (
	headerTimeout = 10 * time.Second // for the head of a request to come in
	keepAlive     = 5 * time.Minute  // for the next request on a connection
	drainTimeout  = 15 * time.Second // for requests in progress when the server is told to end
)

// Options of Run.
type Options struct {
	// Hosts are where to listen: unix:///path, tcp://address:port, or fd:// for what systemd passed.
	Hosts []string
	// Group owns unix sockets, which its members may use; "" is nobody. A group that does not exist is left out.
	Group string
	// Idle ends a server that was activated by a socket and has had no request for so long; 0 is never.
	Idle time.Duration
	TLS  TLS
	// Plain accepts TCP without TLS, on loopback.
	Plain bool
	Log   *slog.Logger
	// Closing is called once the server has been told to end, and ends streams that would not end by themselves.
	Closing func()
}

// TLS names the files that a server on TCP proves itself with, and the authority that clients must have.
type TLS struct {
	CA, Cert, Key string
}

func (t TLS) given() bool { return t != TLS{} }

// Run serves h until ctx ends, a signal asks for the end, or nobody has asked for anything for o.Idle. Requests in
// progress are finished, for some seconds. It fails before it serves anything if it cannot listen everywhere.
func Run(ctx context.Context, h http.Handler, o Options) error {
	s := &server{o: o, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	defer s.close()
	s.passed = takePassed()
	defer s.passed.close()
	for _, host := range o.Hosts {
		if err := s.listen(host); err != nil {
			return err
		}
	}
	if len(s.listeners) == 0 {
		return errdef.Invalid("nowhere to listen: name a socket with --host")
	}
	s.passed.close() // those nobody asked for: their clients are told, rather than left waiting
	raiseFiles()
	return s.run(ctx, h)
}

// server is one Run.
type server struct {
	o         Options
	log       *slog.Logger
	listeners []net.Listener
	passed    *passed
	activated bool

	busy atomic.Int64 // requests in progress, streams among them
	last atomic.Int64 // when the last one ended, in nanoseconds since 1970
}

func (s *server) close() {
	for _, l := range s.listeners {
		l.Close()
	}
}

func (s *server) run(ctx context.Context, h http.Handler) error {
	srv := &http.Server{
		Handler: s.counted(h), ReadHeaderTimeout: headerTimeout, IdleTimeout: keepAlive,
		Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	srv.Protocols.SetHTTP1(true) // and nothing else: HTTP/2 cannot be hijacked
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(signals)

	failed := make(chan error, len(s.listeners))
	var serving sync.WaitGroup
	for _, l := range s.listeners {
		s.log.Info("listening", "on", l.Addr().Network()+"://"+l.Addr().String())
		serving.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	notify("READY=1")
	err := s.await(ctx, signals, failed)
	notify("STOPPING=1")
	if s.o.Closing != nil {
		s.o.Closing()
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	go func() { // a second signal does not wait
		select {
		case <-signals:
			cancel()
		case <-drain.Done():
		}
	}()
	if srv.Shutdown(drain) != nil {
		s.log.Warn("requests were cut off", "number", s.busy.Load())
		srv.Close()
	}
	serving.Wait()
	return err
}

// await returns when the server is to end, with an error if it must.
func (s *server) await(ctx context.Context, signals <-chan os.Signal, failed <-chan error) error {
	s.last.Store(time.Now().UnixNano())
	var tick <-chan time.Time
	if s.activated && s.o.Idle > 0 {
		t := time.NewTicker(max(s.o.Idle/10, 10*time.Millisecond))
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case sig := <-signals:
			s.log.Info("ending", "signal", sig.String())
			return nil
		case err := <-failed:
			return err
		case <-tick:
			if s.busy.Load() == 0 && time.Since(time.Unix(0, s.last.Load())) >= s.o.Idle {
				s.log.Info("ending: nobody has asked for anything", "for", s.o.Idle.String())
				return nil
			}
		}
	}
}

// counted counts the requests in progress. A hijacked connection is in progress until its handler returns.
func (s *server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.busy.Add(1)
		begin := time.Now()
		defer func() {
			s.log.Debug("request", "method", r.Method, "path", r.URL.Path, "took", time.Since(begin), "agent", r.UserAgent())
			s.last.Store(time.Now().UnixNano())
			s.busy.Add(-1)
		}()
		if err := checkHost(r); err != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "{\"message\":%q}\n", err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// checkHost turns away requests over TCP that name a server by anything but its address: a web page whose name was made
// to point here (DNS rebinding) can send those, and nothing else in the request would tell.
func checkHost(r *http.Request) error {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if _, tcp := local.(*net.TCPAddr); !tcp || r.TLS != nil {
		return nil
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	if name == "" || name == "localhost" || net.ParseIP(name) != nil {
		return nil
	}
	return errors.New("requests for a host name are refused: use its address")
}

// config reads the files of t.
func (t TLS) config() (*tls.Config, error) {
	if t.CA == "" || t.Cert == "" || t.Key == "" {
		return nil, errdef.Invalid("TLS needs all of --tlscacert, --tlscert and --tlskey: without an authority everybody could connect")
	}
	cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, errdef.Invalid("read the server's certificate: %w", err)
	}
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, errdef.Invalid("read the authority of clients: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errdef.Invalid("%s holds no certificate", t.CA)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	}, nil
}

// raiseFiles lets the server have as many connections as it may. Go gives programs that it starts the old limit back.
func raiseFiles() {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil && lim.Cur < lim.Max {
		lim.Cur = lim.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	}
}

// notify tells systemd how the server stands, as sd_notify(3) does.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(conn, state)
}
