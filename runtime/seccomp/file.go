package seccomp

import (
	"encoding/binary"
	"os"
	"unsafe"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

const insnSize = int(unsafe.Sizeof(unix.SockFilter{}))

// A compiled filter in a file is followed by its checksum: two return instructions that are never reached, with the
// halves of an FNV-1a sum as their values. So the file is a valid program as it is, and a torn one is not.
const sealSize = 2 * insnSize

// Seal returns the filter with its checksum, the content of a file for ReadFile.
func Seal(filter []byte) []byte {
	sum := fnv1a(filter)
	b := append(make([]byte, 0, len(filter)+sealSize), filter...)
	for _, k := range []uint32{uint32(sum), uint32(sum >> 32)} {
		b = binary.NativeEndian.AppendUint16(b, unix.BPF_RET|unix.BPF_K)
		b = append(b, 0, 0)
		b = binary.NativeEndian.AppendUint32(b, k)
	}
	return b
}

// ReadFile reads a file made by Seal. The result is a filter to load as it is; a damaged file is an error of the
// kind errdef.ErrCorrupt.
func ReadFile(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n := len(b) - sealSize
	if n <= 0 || n%insnSize != 0 || string(Seal(b[:n])[n:]) != string(b[n:]) {
		return nil, errdef.As(errdef.ErrCorrupt, &os.PathError{Op: "read", Path: path, Err: unix.EBADMSG})
	}
	return b, nil
}

// fnv1a sums without hash/fnv's byte-wise interface calls; it guards against accidents, not against an attacker, who
// cannot write to the store.
func fnv1a(b []byte) uint64 {
	sum := uint64(14695981039346656037)
	for _, c := range b {
		sum = (sum ^ uint64(c)) * 1099511628211
	}
	return sum
}
