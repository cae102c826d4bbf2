package payload

import "embed"

const arch = "amd64"

//go:embed data/*-amd64*
var files embed.FS

// initMachine is EM_X86_64.
const initMachine = uint16(62)
