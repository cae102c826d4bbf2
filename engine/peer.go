package engine

import "net"

// Peer is another engine, which offers its images as a registry over HTTP/2 at the other end of a connection. Whoever
// asked for the pull or push made the connection: the engine itself reaches nobody for it.
type Peer struct {
	Name string   // as people call it: ssh://host
	Conn net.Conn // is closed at the end
}
