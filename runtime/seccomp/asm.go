package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// asm writes a program from its end to its start. Classic BPF jumps only forward, so every target is already there
// when a jump to it is written, and its distance is known.
type asm struct {
	rev  []unix.SockFilter // the last instruction first
	near map[label]label   // the copy of a target that was written last, so that a jump reaches it
	rets map[uint32]label  // where each return value was written last
}

// label is the index in asm.rev of the instruction jumped to.
type label int

// reach is how far a conditional jump goes: its offsets are 8 bits. One less, because making one target of a jump
// reachable may push the other away by one.
const reach = 254

func newAsm() *asm { return &asm{near: map[label]label{}, rets: map[uint32]label{}} }

func (a *asm) emit(code uint16, jt, jf uint8, k uint32) label {
	a.rev = append(a.rev, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
	return label(len(a.rev) - 1)
}

// distance is the offset to l of an instruction written next.
func (a *asm) distance(l label) int { return len(a.rev) - 1 - int(l) }

// ret makes the filter return value.
func (a *asm) ret(value uint32) label {
	l, ok := a.rets[value]
	if !ok || a.distance(l) > reach-2 {
		l = a.emit(unix.BPF_RET|unix.BPF_K, 0, 0, value)
		a.rets[value] = l
	}
	return l
}

// reachable returns l or a copy of it close enough for a conditional jump.
func (a *asm) reachable(l label) label {
	if c, ok := a.near[l]; ok {
		if a.distance(c) <= reach {
			return c
		}
	} else if a.distance(l) <= reach {
		return l
	}
	var c label
	if target := a.rev[l]; target.Code == unix.BPF_RET|unix.BPF_K {
		c = a.ret(target.K)
	} else {
		c = a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(a.distance(l)))
	}
	a.near[l] = c
	return c
}

// jump compares the accumulator with k (op is BPF_JEQ, BPF_JGT or BPF_JGE).
func (a *asm) jump(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return a.follow(yes)
	}
	yes = a.reachable(yes)
	no = a.reachable(no)
	return a.emit(unix.BPF_JMP|op|unix.BPF_K, uint8(a.distance(yes)), uint8(a.distance(no)), k)
}

// follow makes the instruction written next, which falls through, be followed by l.
func (a *asm) follow(l label) label {
	switch {
	case a.distance(l) == 0:
		return l
	case a.rev[l].Code == unix.BPF_RET|unix.BPF_K:
		return a.emit(unix.BPF_RET|unix.BPF_K, 0, 0, a.rev[l].K)
	default:
		return a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(a.distance(l)))
	}
}

// load puts the 32-bit word at offset of struct seccomp_data into the accumulator and goes on at next.
func (a *asm) load(offset uint32, next label) label {
	a.follow(next)
	return a.emit(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset)
}

// and masks the accumulator and goes on at next.
func (a *asm) and(mask uint32, next label) label {
	if mask == 0xffffffff {
		return next
	}
	a.follow(next)
	return a.emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, mask)
}

// program returns what was written, in the order it runs.
func (a *asm) program() []unix.SockFilter {
	slices.Reverse(a.rev)
	return a.rev
}
