// Attacker is what a hostile image would run. Each command tries one kind of attack from inside a container and
// prints a line for every success; a container that holds prints only lines that begin with "#". What attacks over and
// over ends at SIGTERM.
//
//	attacker leak /host/canary        read a host file through working directory, descriptors and /proc
//	attacker watch /host/canary       the same over and over, with ptrace, against processes that come and go
//	attacker exe                      overwrite the program of whoever enters the container
//	attacker cgroup                   control groups and their release agents
//	attacker devices 254:0 ...        open device nodes, the host's and those in the image
//	attacker sockets                  sockets of every family
//	attacker paths                    host secrets and switches in /proc and /sys
//	attacker domain                   say what domain name this namespace has
//	attacker swap DIR                 exchange DIR/a and the symlink DIR/b for ever
package main

import (
	"fmt"
	"iter"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: attacker COMMAND ...")
		os.Exit(2)
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "leak":
		leak(args[0], true)
	case "watch":
		watch(args[0])
	case "exe":
		overwrite()
	case "cgroup":
		cgroups()
	case "devices":
		devices(args)
	case "sockets":
		sockets()
	case "paths":
		paths()
	case "domain":
		domain()
	case "swap":
		swap(args[0])
	default:
		fmt.Fprintf(os.Stderr, "attacker: no attack %q\n", os.Args[1])
		os.Exit(2)
	}
}

// untilStopped yields until SIGTERM comes, which a process with pid 1 only gets if it asked for it.
func untilStopped() iter.Seq[struct{}] {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	return func(yield func(struct{}) bool) {
		for len(stop) == 0 && yield(struct{}{}) {
		}
	}
}

// success prints that an attack worked.
func success(format string, a ...any) { fmt.Printf("SUCCESS "+format+"\n", a...) }

// note prints something for the log of the test.
func note(format string, a ...any) { fmt.Printf("# "+format+"\n", a...) }
