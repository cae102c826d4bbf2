//go:build !amd64 && !arm64

package payload

import (
	"embed"
	"runtime"
)

const arch = runtime.GOARCH

// files is empty: make build has no recipe for this architecture.
var files embed.FS
