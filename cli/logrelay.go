package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"os"
	"time"

	"hull/errdef"

	"github.com/spf13/cobra"
)

// relayTimeout bounds the time to connect, and how long the server may take nothing.
const relayTimeout = 10 * time.Second

// buildLogRelay is the part of a monitor that speaks TLS to a syslog server: it writes one byte to stdout when it is
// connected, and then sends what comes on stdin.
func buildLogRelay(a *app, cmd *cobra.Command) {
	var ca, cert, key string
	var skip bool
	cmd.Use += " [OPTIONS] ADDRESS"
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.StringVar(&ca, "ca-cert", "", "Certificates that the server's has to be signed by")
	f.StringVar(&cert, "cert", "", "Our certificate")
	f.StringVar(&key, "key", "", "Key of our certificate")
	f.BoolVar(&skip, "skip-verify", false, "Take any server for the right one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := relayConfig(ca, cert, key, skip)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), relayTimeout)
		defer cancel()
		conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", args[0])
		if err != nil {
			return errdef.As(errdef.ErrUnavailable, err)
		}
		defer conn.Close()
		if _, err := a.Stdout.WriteString("+"); err != nil {
			return err
		}
		buf := make([]byte, 32<<10)
		for {
			n, err := a.Stdin.Read(buf)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if err := conn.SetWriteDeadline(time.Now().Add(relayTimeout)); err != nil {
				return err
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return err
			}
		}
	}
}

func relayConfig(ca, cert, key string, skip bool) (*tls.Config, error) {
	cfg := &tls.Config{InsecureSkipVerify: skip, MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, plainPathError(err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errdef.Invalid("%s has no certificate", ca)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, errdef.Invalid("log driver syslog: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
