//go:build amd64 || arm64

package payload

import (
	"bytes"
	"encoding/binary"
	"unsafe"
)

// initCode is where the instructions of the init lie in this program.
func initCode() (start, end unsafe.Pointer)

// Where the init is loaded; a multiple of every page size.
const initBase = 0x400000

// Init is the program that is process 1 of a container which asked for one (--init). It runs a command, passes on every
// signal it gets, reaps whatever is left to it, and ends as the command does: 128 and the signal's number for a killed
// one. Its arguments are its own name, the path of the command, and the command's arguments from its name on.
//
// It is written in assembly and needs one page of memory and no thread: a program of Go would take megabytes from the
// container's limit and five of its processes. The assembler of the Go toolchain makes it along with the rest of hull;
// here it gets the header of an ELF executable.
func Init() []byte {
	start, end := initCode()
	code := unsafe.Slice((*byte)(start), uintptr(end)-uintptr(start))
	const header, segments = 64, 56
	offset := uint64(header + 2*segments)
	size := offset + uint64(len(code))
	var b bytes.Buffer
	put := func(v ...any) {
		for _, x := range v {
			_ = binary.Write(&b, binary.LittleEndian, x) // to memory
		}
	}
	// elf(5): 64 bits, little endian; an executable; entered at the first instruction.
	b.WriteString("\x7fELF\x02\x01\x01" + string(make([]byte, 9)))
	put(uint16(2), initMachine, uint32(1), initBase+offset, uint64(header), uint64(0), uint32(0),
		uint16(header), uint16(segments), uint16(2), uint16(0), uint16(0), uint16(0))
	const load, stack, execute, write, read = 1, 0x6474e551, 1, 2, 4
	put(uint32(load), uint32(read|execute), uint64(0), uint64(initBase), uint64(initBase), size, size, uint64(0x10000))
	put(uint32(stack), uint32(read|write), [5]uint64{}, uint64(16))
	b.Write(code)
	return b.Bytes()
}
