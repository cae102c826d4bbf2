package payload

import "embed"

const arch = "amd64"

//go:embed data/*-amd64*
var files embed.FS
