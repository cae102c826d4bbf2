package payload

import "embed"

const arch = "arm64"

//go:embed data/*-arm64*
var files embed.FS

// initMachine is EM_AARCH64.
const initMachine = uint16(183)
