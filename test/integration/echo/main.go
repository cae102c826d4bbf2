// Echo is a service for tests: on each port it is given, TCP and UDP, it tells clients which address they have.
package main

import (
	"log"
	"net"
	"os"
)

func main() {
	for _, port := range os.Args[1:] {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			log.Fatal(err)
		}
		u, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			log.Fatal(err)
		}
		go tcp(l)
		go udp(u)
	}
	select {}
}

func tcp(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer c.Close()
			c.Read(make([]byte, 100))
			c.Write([]byte(host(c.RemoteAddr()) + "\n"))
		}()
	}
}

func udp(u net.PacketConn) {
	buf := make([]byte, 2000)
	for {
		_, from, err := u.ReadFrom(buf)
		if err != nil {
			log.Fatal(err)
		}
		u.WriteTo([]byte(host(from)+"\n"), from)
	}
}

func host(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}
