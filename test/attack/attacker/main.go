// Attacker is what a hostile image would run. Each command tries one kind of attack from inside a container and
// prints a line for every success; a container that holds prints only lines that begin with "#".
//
//	attacker leak /host/canary        read a host file through working directory, descriptors and /proc
//	attacker watch 2s /host/canary    the same over and over, with ptrace, against processes that come and go
//	attacker exe 2s                   overwrite the program of whoever enters the container
//	attacker cgroup                   control groups and their release agents
//	attacker devices 254:0 ...        open device nodes, the host's and those in the image
//	attacker sockets                  sockets of every family
//	attacker paths                    host secrets and switches in /proc and /sys
//	attacker domain                   say what domain name this namespace has
//	attacker swap DIR                 exchange DIR/a and the symlink DIR/b for ever
package main

import (
	"fmt"
	"os"
	"time"
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
		watch(duration(args[0]), args[1])
	case "exe":
		overwrite(duration(args[0]))
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

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return d
}

// success prints that an attack worked.
func success(format string, a ...any) { fmt.Printf("SUCCESS "+format+"\n", a...) }

// note prints something for the log of the test.
func note(format string, a ...any) { fmt.Printf("# "+format+"\n", a...) }
