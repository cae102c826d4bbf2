// Command hulld is hull with what is too heavy for every start linked in: builds, apps, the Kubernetes interface and
// the served API will live here. It takes every command hull does.
package main

import (
	"os"

	"hull/cmd/internal/local"
)

func main() { os.Exit(local.Main()) }
