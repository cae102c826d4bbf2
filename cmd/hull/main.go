// Go keeps looking whether the limit to its number of processors has changed, and begins with a goroutine for that. This
// program is gone before it matters, or uses one processor anyway.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command hull runs containers without a daemon: command line, Engine API and engine in one process.
package main

import (
	"os"

	"hull/cmd/internal/local"
)

func main() { os.Exit(local.Main(nil)) }
