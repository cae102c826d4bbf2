// Package seccomptest runs seccomp filters without a kernel, for tests.
//
//	ret, err := seccomptest.Run(p.Filter, seccomptest.Data{Nr: 41, Arch: unix.AUDIT_ARCH_X86_64, Args: [6]uint64{38}})
//
// It accepts exactly what the kernel's seccomp_check_filter accepts of what our compiler writes, and fails loudly
// at anything else.
package seccomptest

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Data is struct seccomp_data.
type Data struct {
	Nr   uint32
	Arch uint32
	IP   uint64
	Args [6]uint64
	// BigEndian lays out the arguments as a big-endian machine does.
	BigEndian bool
}

func (d *Data) word(offset uint32) (uint32, error) {
	var b [64]byte
	var order binary.ByteOrder = binary.LittleEndian
	if d.BigEndian {
		order = binary.BigEndian
	}
	order.PutUint32(b[0:], d.Nr)
	order.PutUint32(b[4:], d.Arch)
	order.PutUint64(b[8:], d.IP)
	for i, a := range d.Args {
		order.PutUint64(b[16+8*i:], a)
	}
	if offset%4 != 0 || offset > 60 {
		return 0, fmt.Errorf("load at offset %d", offset)
	}
	return order.Uint32(b[offset:]), nil
}

// Run returns what the filter returns for d.
func Run(filter []unix.SockFilter, d Data) (ret uint32, err error) {
	ret, _, err = Steps(filter, d)
	return ret, err
}

// Steps is Run that also counts the instructions executed.
func Steps(filter []unix.SockFilter, d Data) (ret uint32, steps int, err error) {
	var acc uint32
	for pc := 0; pc < len(filter); {
		f := filter[pc]
		pc++
		steps++
		taken := false
		switch f.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if acc, err = d.word(f.K); err != nil {
				return 0, steps, fmt.Errorf("instruction %d: %w", pc-1, err)
			}
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= f.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return f.K, steps, nil
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(f.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			taken = acc == f.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			taken = acc > f.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			taken = acc >= f.K
		default:
			return 0, steps, fmt.Errorf("instruction %d: code %#x", pc-1, f.Code)
		}
		if taken {
			pc += int(f.Jt)
		} else {
			pc += int(f.Jf)
		}
	}
	return 0, steps, fmt.Errorf("ran off the end of %d instructions", len(filter))
}
