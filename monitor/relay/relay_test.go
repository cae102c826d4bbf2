package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	local4 = IP{127, 0, 0, 1}
	local6 = IP{15: 1}
)

// serve publishes one port that leads to a port of this host.
func serve(t *testing.T, proto string, to uint16, on ...IP) *Relay {
	t.Helper()
	r, err := Listen(&Config{Ports: []Wanted{{Proto: proto, To: to, On: on}}, To: []IP{local4}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.Serve()
	return r
}

// echo is a TCP service that sends back what it gets, once it has got all of it.
func echo(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, _ := io.ReadAll(c)
				c.Write(all)
			}()
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func host(p Port) string {
	return net.JoinHostPort(net.IP(p.On).String(), fmt.Sprint(p.Port))
}

func TestTCP(t *testing.T) {
	r := serve(t, "tcp", echo(t), local4, local6)
	ports := r.Ports()
	if len(ports) != 2 || ports[0].Port != ports[1].Port || ports[0].Port == 0 {
		t.Fatalf("want one port on both addresses, got %v", ports)
	}
	want := make([]byte, 3<<20)
	rand.Read(want)
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() {
			c, err := net.Dial("tcp", host(ports[i%2]))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.Write(want)
			c.(*net.TCPConn).CloseWrite() // the answer comes after our end
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes of %d, %v", len(got), len(want), err)
			}
		})
	}
	work.Wait()
}

func TestNobodyListensInside(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	r := serve(t, "tcp", to, local4)
	c, err := net.Dial("tcp", host(r.Ports()[0]))
	if err != nil {
		return // refused already
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("want the connection to end, got %v", err)
	}
}

func TestUDP(t *testing.T) {
	s, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := s.ReadFrom(buf)
			if err != nil {
				return
			}
			s.WriteTo(append([]byte("re:"), buf[:n]...), from)
		}
	}()
	// On every address: the answer has to come from the one that was asked.
	r := serve(t, "udp", uint16(s.LocalAddr().(*net.UDPAddr).Port), IP{0, 0, 0, 0}, make(IP, 16))
	for i := range 20 {
		to := []string{"127.0.0.1", "127.0.0.9", "::1"}[i%3]
		c, err := net.Dial("udp", net.JoinHostPort(to, fmt.Sprint(r.Ports()[0].Port)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		for _, msg := range []string{"one", "", "three" + strings.Repeat("x", 20000)} {
			c.Write([]byte(msg))
			buf := make([]byte, 1<<16)
			n, err := c.Read(buf)
			if got := string(buf[:n]); err != nil || got != "re:"+msg {
				t.Fatalf("client %d of %s: got %d bytes, %v", i, to, n, err)
			}
		}
	}
}

func TestFlowsAreBounded(t *testing.T) {
	r := &Relay{cfg: &Config{To: []IP{local4}}, open: map[*os.File]struct{}{}}
	defer r.Close()
	w := &Wanted{Proto: "udp", To: 9, On: []IP{local4}}
	ls, err := claim(w)
	if err != nil {
		t.Fatal(err)
	}
	r.listeners = ls
	fs := &flows{of: map[peer]*flow{}}
	first := &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}
	gone := r.flow(ls[0], fs, first, nil)
	for i := range maxFlows {
		if r.flow(ls[0], fs, &unix.SockaddrInet4{Port: 2 + i, Addr: [4]byte{127, 0, 0, 1}}, nil) == nil {
			t.Fatal("no flow")
		}
	}
	if len(fs.of) != maxFlows || fs.holds(gone) {
		t.Errorf("%d flows, the oldest is there: %v", len(fs.of), fs.holds(gone))
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		open := len(r.open)
		r.mu.Unlock()
		if open == maxFlows {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d sockets are open, want %d", open, maxFlows)
		}
	}
}

func TestConflict(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		first := serve(t, proto, 1, IP{0, 0, 0, 0})
		p := first.Ports()[0]
		before := descriptors(t)
		_, err := Listen(&Config{Ports: []Wanted{
			{Proto: proto, To: 2, On: []IP{local4}},
			{Proto: proto, To: 1, On: []IP{local4}, First: p.Port},
		}})
		var busy *BindError
		if !errors.As(err, &busy) || !isBusy(err) || busy.Port.Port != p.Port || !slices.Equal(busy.Port.On, local4) {
			t.Errorf("%s: got %v (%+v)", proto, err, busy)
		}
		if now := descriptors(t); now != before {
			t.Errorf("%s: %d descriptors, %d before the refused one", proto, now, before)
		}
		first.Close()
		if r, err := Listen(&Config{Ports: []Wanted{{Proto: proto, On: []IP{local4}, First: p.Port}}}); err != nil {
			t.Errorf("%s: after Close: %v", proto, err)
		} else {
			r.Close()
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestRangeTakesTheLowestFree(t *testing.T) {
	taken := serve(t, "tcp", 1, local4).Ports()[0].Port
	w := Wanted{Proto: "tcp", To: 80, On: []IP{local4}, First: taken, Last: taken}
	if taken == 65535 {
		t.Skip("the kernel chose the last port")
	}
	if _, err := claim(&w); !isBusy(err) {
		t.Errorf("range of one taken port: %v", err)
	}
	w.Last++
	ls, err := claim(&w)
	if err != nil {
		if isBusy(err) {
			t.Skip("somebody else has the next port")
		}
		t.Fatal(err)
	}
	defer ls[0].f.Close()
	if ls[0].Port.Port != taken+1 {
		t.Errorf("got %d of %d-%d", ls[0].Port.Port, w.First, w.Last)
	}
}

func TestOneOfFiftyWins(t *testing.T) {
	free := serve(t, "tcp", 1, local4)
	port := free.Ports()[0].Port
	free.Close()
	var mu sync.Mutex
	var won []*Relay
	var work sync.WaitGroup
	for range 50 {
		work.Go(func() {
			r, err := Listen(&Config{Ports: []Wanted{{Proto: "tcp", On: []IP{local4}, First: port}}})
			if err != nil && !isBusy(err) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				won = append(won, r)
				mu.Unlock()
			}
		})
	}
	work.Wait()
	if len(won) != 1 {
		t.Errorf("%d got the port", len(won))
	}
	for _, r := range won {
		r.Close()
	}
}

func TestCloseEndsConnections(t *testing.T) {
	r := serve(t, "tcp", echo(t), local4)
	c, err := net.Dial("tcp", host(r.Ports()[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("x"))
	r.Close() // waits for everything it began
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestSubnet(t *testing.T) {
	s := Subnet{IP{172, 30, 0, 1}, 16}
	for _, c := range []struct {
		ip   IP
		want bool
	}{{IP{172, 30, 255, 9}, true}, {IP{172, 31, 0, 1}, false}, {local6, false}} {
		if got := s.has(c.ip); got != c.want {
			t.Errorf("%v: %v", c.ip, got)
		}
	}
}

// Clients cannot take all descriptors of the monitor: one too many is refused, and the next after one has left is not.
func TestConnectionsAreBounded(t *testing.T) {
	r, err := Listen(&Config{Ports: []Wanted{{Proto: "tcp", To: echo(t), On: []IP{local4}}}, To: []IP{local4}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.most = 4 // two clients, each with a connection inside
	r.Serve()
	talk := func(c net.Conn) error {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", r.Ports()[0].Port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	open := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.open)
	}
	wait := func(n int) {
		for end := time.Now().Add(10 * time.Second); open() != n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d connections are open, want %d", open(), n)
			}
		}
	}
	first, second := dial(), dial()
	wait(4)
	third, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", r.Ports()[0].Port))
	if err == nil { // else the reset was quick
		err = talk(third)
		third.Close()
	}
	if err == nil {
		t.Error("a third client was served")
	}
	if err := talk(first); err != nil {
		t.Errorf("the first client: %v", err)
	}
	first.Close()
	wait(2)
	if err := talk(dial()); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	if err := talk(second); err != nil {
		t.Errorf("the second client: %v", err)
	}
}
