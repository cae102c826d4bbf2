package payload

import "embed"

const arch = "arm64"

//go:embed data/*-arm64*
var files embed.FS
