package integration

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hull/test/rig"
)

// certificate writes one for 127.0.0.1, signed by itself, and returns it with the path of what to trust.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

// TestSyslogServers: what a container writes arrives at servers of every kind, and hull logs has it too.
func TestSyslogServers(t *testing.T) {
	rig.Root(t)
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	cert, ca := certificate(t)
	for _, kind := range []string{"tcp", "tcp+tls", "unix"} {
		t.Run(kind, func(t *testing.T) {
			var ln net.Listener
			var err error
			address := ""
			switch kind {
			case "tcp":
				ln, err = net.Listen("tcp", "127.0.0.1:0")
			case "tcp+tls":
				ln, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
			case "unix":
				ln, err = net.Listen("unix", filepath.Join(t.TempDir(), "log"))
			}
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			address = kind + "://" + ln.Addr().String()
			got := make(chan string, 1)
			go func() { // ends with the connection, or the listener
				conn, err := ln.Accept()
				if err != nil {
					got <- err.Error()
					return
				}
				defer conn.Close()
				conn.SetReadDeadline(time.Now().Add(30 * time.Second))
				line, err := bufio.NewReader(conn).ReadString('\n')
				if err != nil {
					line = err.Error()
				}
				got <- line
			}()
			h.Must(t, "run", "--name", "web", "--network", "none", "--log-driver", "syslog", "--log-opt", "syslog-address="+address,
				"--log-opt", "syslog-format=rfc3164", "--log-opt", "syslog-facility=local1", "--log-opt", "tag={{.Name}}",
				"--log-opt", "syslog-tls-ca-cert="+ca, "busybox", "echo", "hello there")
			if line := <-got; !strings.HasPrefix(line, "<142>") || !strings.Contains(line, " web[") || !strings.HasSuffix(line, ": hello there\n") {
				t.Errorf("the server got %q", line)
			}
			if out := h.Must(t, "logs", "web"); out != "hello there" {
				t.Errorf("hull logs has %q", out)
			}
			h.Must(t, "rm", "web")
		})
	}
	if r := h.Run(t, "run", "--rm", "--network", "none", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp+tls://127.0.0.1:1", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "refused") {
		t.Errorf("want that the server is not there, got %+v", r)
	}
}

// TestLogFlood: a container that writes as fast as it can takes no more of the disk than its log may have.
func TestLogFlood(t *testing.T) {
	rig.Root(t)
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	for _, opts := range [][]string{
		{"--log-opt", "max-size=1m", "--log-opt", "max-file=2"},
		{"--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt", "max-file=2"},
	} {
		t.Run(fmt.Sprint(opts), func(t *testing.T) {
			args := append([]string{"run", "-d", "--name", "web", "--network", "none"}, opts...)
			id := strings.TrimSpace(h.Must(t, append(args, "busybox", "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' '\\n'; echo end")...))
			var most int64
			for deadline := time.Now().Add(rig.Patience(60 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
				most = max(most, diskOf(filepath.Join(h.Root, "containers", id, "log")))
				if h.Must(t, "inspect", "-f", "{{.State.Status}}", "web") == "exited" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("it does not end")
				}
			}
			// Two files, one being compressed, and what is written at once.
			if most > 3<<20+1<<19 {
				t.Errorf("the log took %d bytes", most)
			}
			t.Logf("at most %d bytes", most)
			if out := h.Must(t, "logs", "-n", "1", "web"); out != "end" {
				t.Errorf("the last line is %q", out)
			}
			h.Must(t, "rm", "web")
		})
	}
}

// diskOf adds up the files below dir.
func diskOf(dir string) (sum int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if fi, err := d.Info(); err == nil {
				sum += fi.Size()
			}
		}
		return nil
	})
	return sum
}
