// Hull-runtime is the lean program beside every container: an OCI runtime with runc's command line, for Docker,
// containerd and Podman, and the monitor that hull starts for its own containers.
//
//	hull-runtime [--root DIR] [--log FILE] create --bundle DIR ID
//	hull-runtime start|state|kill|delete|exec|run|list|ps|pause|resume|update|spec|features ...
//	hull-runtime monitor DIR                    (by hull only)
//
// Beware: it is executed once for every start of a container, so nothing it imports may do work before main.
package main

import (
	"fmt"
	"os"

	"hull/monitor"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "monitor" {
		os.Exit(monitor.Main(os.Args[2:]))
	}
	fmt.Fprintln(os.Stderr, "hull-runtime: no such command")
	os.Exit(1)
}
