package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
)

// Limits against clients that stall, and how long those that do not have at the end.
const (
	headerTimeout = 10 * time.Second
	keepAlive     = 2 * time.Minute
	drainTimeout  = 15 * time.Second
	maxHeader     = 64 << 10
)

// Listen says where Run serves.
type Listen struct {
	Address string // an address and a port, 127.0.0.1:5000; the port 0 is any
	// Cert and Key are files for TLS; "" is without. CA is the file of the authority that clients have to have a certificate
	// of; "" is without.
	Cert, Key, CA string
	// Writable says that the handler is, and Insecure that a person accepts what Check refuses.
	Writable, Insecure bool
	Log                *slog.Logger // nil is nowhere
	// Ready is told where the registry is, as soon as it answers; may be nil.
	Ready func(addr net.Addr, secure bool)
}

// Check refuses to let strangers write: who can reach a writable registry can put another image in the place of one that is
// run here. TLS alone does not tell who they are.
func (l *Listen) Check() error {
	ap, err := netip.ParseAddrPort(l.Address)
	if err != nil {
		return errdef.Invalid("--addr %s: it takes an address and a port, like 127.0.0.1:5000 or 0.0.0.0:5000", l.Address)
	}
	switch {
	case (l.Cert == "") != (l.Key == ""):
		return errdef.Invalid("TLS needs both --tls-cert and --tls-key")
	case l.CA != "" && l.Cert == "":
		return errdef.Invalid("--tls-ca needs --tls-cert and --tls-key too")
	case l.Writable && !ap.Addr().IsLoopback() && l.CA == "" && !l.Insecure:
		return errdef.Forbidden("everybody who can reach %s could replace the images that are run here: add --tls-ca (with --tls-cert and --tls-key) for clients with a certificate, listen on 127.0.0.1, or accept it with --insecure-writable", l.Address)
	}
	return nil
}

func (l *Listen) tls() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(l.Cert, l.Key)
	if err != nil {
		return nil, errdef.Invalid("read the certificate: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if l.CA == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(l.CA)
	if err != nil {
		return nil, errdef.Invalid("read the authority of clients: %w", err)
	}
	cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errdef.Invalid("%s holds no certificate", l.CA)
	}
	return cfg, nil
}

func server(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: keepAlive, MaxHeaderBytes: maxHeader, Protocols: new(http.Protocols),
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Run serves h until ctx ends or a signal asks for the end. Requests in progress are finished, for some seconds.
func Run(ctx context.Context, h http.Handler, l Listen) error {
	if err := l.Check(); err != nil {
		return err
	}
	srv := server(h, l.Log)
	srv.Protocols.SetHTTP1(true)
	if l.Cert != "" {
		cfg, err := l.tls()
		if err != nil {
			return err
		}
		srv.TLSConfig = cfg
		srv.Protocols.SetHTTP2(true)
	}
	on, err := net.Listen("tcp", l.Address)
	if err != nil {
		return listenError(l.Address, err)
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() {
		err := error(nil)
		if srv.TLSConfig != nil {
			err = srv.ServeTLS(on, "", "")
		} else {
			err = srv.Serve(on)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
	if l.Ready != nil {
		l.Ready(on.Addr(), l.Cert != "")
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		stop() // a second signal does not wait
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if srv.Shutdown(drain) != nil {
		srv.Close()
	}
	serving.Wait()
	return err
}

func listenError(address string, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return errdef.Conflict("%s is taken by another program: choose another with --addr: %w", address, err)
	}
	return err
}

// One serves h on one connection, HTTP/2 without TLS, to whoever holds the other ends of in and out; until that ends, or
// ctx does.
func One(ctx context.Context, h http.Handler, in io.ReadCloser, out io.WriteCloser, log *slog.Logger) error {
	srv := server(h, log)
	srv.Protocols.SetUnencryptedHTTP2(true)
	c := &pipeConn{in: in, out: out, closed: make(chan struct{})}
	l := &single{conn: make(chan net.Conn, 1), closed: c.closed}
	l.conn <- c
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	err := srv.Serve(l)
	c.Close()
	_ = srv.Close()
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, context.Cause(ctx))
}

// single is a listener with one connection, which ends with it.
type single struct {
	conn   chan net.Conn
	closed <-chan struct{}
}

func (l *single) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *single) Close() error   { return nil }
func (l *single) Addr() net.Addr { return pipeAddr{} }

// pipeConn is a connection made of two files, which need not be able to have deadlines.
type pipeConn struct {
	in     io.ReadCloser
	out    io.WriteCloser
	once   sync.Once
	closed chan struct{}
}

func (c *pipeConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *pipeConn) Write(p []byte) (int, error) { return c.out.Write(p) }

func (c *pipeConn) Close() error {
	err := error(nil)
	c.once.Do(func() {
		err = errors.Join(c.out.Close(), c.in.Close())
		close(c.closed)
	})
	return err
}

func (c *pipeConn) LocalAddr() net.Addr  { return pipeAddr{} }
func (c *pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }

func (c *pipeConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *pipeConn) SetReadDeadline(t time.Time) error {
	if f, ok := c.in.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = f.SetReadDeadline(t) // a regular file or a terminal has none
	}
	return nil
}

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	if f, ok := c.out.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = f.SetWriteDeadline(t)
	}
	return nil
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "stdio" }
func (pipeAddr) String() string  { return "stdio" }

// checkHost turns away requests that name a registry on loopback by anything but its address: a web page whose name was
// made to point here (DNS rebinding) can send those, and nothing else in the request would tell.
func checkHost(q *http.Request) error {
	local, _ := q.Context().Value(http.LocalAddrContextKey).(net.Addr)
	tcp, ok := local.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() || q.TLS != nil {
		return nil
	}
	name := q.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	if name == "" || name == "localhost" || net.ParseIP(name) != nil {
		return nil
	}
	return denied.with("requests for a host name are refused here: use the address")
}
