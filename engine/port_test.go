package engine

import (
	"errors"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hull/errdef"
	"hull/monitor/relay"
	"hull/network"
)

func TestWanted(t *testing.T) {
	any4, any6 := make(relay.IP, 4), make(relay.IP, 16)
	c := &Container{
		Config: Config{ExposedPorts: []string{"80/tcp", "53/udp"}},
		Host: Host{Network: network.Bridge, PublishAll: true, Ports: []PortBinding{
			{Port: "80", HostPort: ""},
			{Port: "80/tcp", HostPort: "8080"},
			{Port: "70/tcp", HostIP: "127.0.0.1", HostPort: "7000-7010"},
			{Port: "60/UDP", HostIP: "::1", HostPort: "0"},
		}},
	}
	got, err := c.wanted()
	want := []relay.Wanted{
		{Proto: "tcp", To: 80, On: []relay.IP{any4, any6}, First: 8080, Last: 8080},
		{Proto: "tcp", To: 70, On: []relay.IP{{127, 0, 0, 1}}, First: 7000, Last: 7010},
		{Proto: "tcp", To: 80, On: []relay.IP{any4, any6}},
		{Proto: "udp", To: 60, On: []relay.IP{{15: 1}}},
		{Proto: "udp", To: 53, On: []relay.IP{any4, any6}}, // 80 is bound already
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("want\n%v\ngot\n%v, %v", want, got, err)
	}
}

func TestCheckPorts(t *testing.T) {
	for _, tt := range []struct {
		b    PortBinding
		kind error
		text string
	}{
		{PortBinding{Port: "80/sctp"}, errdef.ErrNotImplemented, "SCTP"},
		{PortBinding{Port: "80/foo"}, errdef.ErrInvalid, "invalid port specification"},
		{PortBinding{Port: "0/tcp"}, errdef.ErrInvalid, "invalid port specification"},
		{PortBinding{Port: "80", HostPort: "x"}, errdef.ErrInvalid, "host port"},
		{PortBinding{Port: "80", HostPort: "9-8"}, errdef.ErrInvalid, "host port"},
		{PortBinding{Port: "80", HostPort: "0-8"}, errdef.ErrInvalid, "host port"},
		{PortBinding{Port: "80", HostPort: "70000"}, errdef.ErrInvalid, "host port"},
		{PortBinding{Port: "80", HostIP: "224.0.0.1"}, errdef.ErrInvalid, "invalid IP address"},
		{PortBinding{Port: "80", HostIP: "fe80::1%eth0"}, errdef.ErrInvalid, "invalid IP address"},
		{PortBinding{Port: "80", HostIP: "localhost"}, errdef.ErrInvalid, "invalid IP address"},
	} {
		_, err := checkPorts(new(Config), &Host{Network: network.Bridge, Ports: []PortBinding{tt.b}})
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%v: got %v", tt.b, err)
		}
	}
	// What the image exposes and cannot be published is left out, and said.
	c := &Container{Config: Config{ExposedPorts: []string{"9/sctp", "80/tcp"}}, Host: Host{Network: network.Bridge, PublishAll: true}}
	if w, err := checkPorts(&c.Config, &c.Host); err != nil || len(w) != 1 || !strings.Contains(w[0], "9/sctp") {
		t.Errorf("publish all with SCTP: %q, %v", w, err)
	}
	if w, err := c.wanted(); err != nil || len(w) != 1 || w[0].To != 80 {
		t.Errorf("publish all with SCTP: %v, %v", w, err)
	}
	b := []PortBinding{{Port: "80", HostPort: "80"}}
	if w, err := checkPorts(new(Config), &Host{Network: modeHost, Ports: b}); err != nil || len(w) != 1 || !strings.Contains(w[0], "discarded") {
		t.Errorf("host network: %v, %v", w, err)
	}
	if _, err := checkPorts(new(Config), &Host{Network: "container:x", Ports: b}); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("another's network: %v", err)
	}
}

func TestHolderIsTheListeningProcess(t *testing.T) {
	e := Open(t.TempDir(), t.TempDir(), Options{})
	me := "(pid " + strconv.Itoa(os.Getpid()) + ")"
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		for _, on := range []relay.IP{make(relay.IP, 4), make(relay.IP, 16)} {
			if got := e.holder(&relay.Port{Proto: "tcp", On: on, Port: port}); !strings.Contains(got, me) {
				t.Errorf("%s port %d: %q", addr, port, got)
			}
		}
	}
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if got := e.holder(&relay.Port{Proto: "udp", On: relay.IP{127, 0, 0, 1}, Port: uint16(u.LocalAddr().(*net.UDPAddr).Port)}); !strings.Contains(got, me) {
		t.Errorf("udp: %q", got)
	}
}

func TestPortTest(t *testing.T) {
	c := &Container{Config: Config{ExposedPorts: []string{"80/tcp"}}, Host: Host{Ports: []PortBinding{{Port: "53/udp"}}}}
	for _, tt := range []struct {
		publish bool
		value   string
		want    bool
	}{{true, "53/udp", true}, {true, "53", false}, {true, "50-60/udp", true}, {false, "80", true}, {false, "1-79", false}, {true, "80", false}} {
		f, err := portTest(tt.publish, []string{tt.value})
		if err != nil || f(c) != tt.want {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	for _, bad := range []string{"", "x", "9-8", "70000"} {
		if _, err := portTest(true, []string{bad}); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestProcAddr(t *testing.T) {
	if got := procAddr("0100007F"); !slices.Equal(got, []byte{127, 0, 0, 1}) && !slices.Equal(got, []byte{1, 0, 0, 127}) {
		t.Errorf("got %v", got)
	}
	if procAddr("xyz") != nil || procAddr("01") != nil {
		t.Error("no address was read as one")
	}
}
