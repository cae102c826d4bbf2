// Command hull runs containers without a daemon: command line, Engine API and engine in one process.
package main

import (
	"os"

	"hull/cmd/internal/local"
)

func main() { os.Exit(local.Main(nil)) }
