package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// cond writes the test of one argument; what follows is yes or no.
func (a *asm) cond(on *arch, c specs.LinuxSeccompArg, yes, no label) label {
	w := words{asm: a, lo: offsetArgs + 8*uint32(c.Index), wide: on.wide, mask: 1<<64 - 1, value: c.Value}
	if w.hi = w.lo + 4; on.big {
		w.lo, w.hi = w.hi, w.lo
	}
	switch c.Op {
	case specs.OpMaskedEqual:
		w.mask, w.value = c.Value, c.ValueTwo
		return w.equal(yes, no)
	case specs.OpEqualTo:
		return w.equal(yes, no)
	case specs.OpNotEqual:
		return w.equal(no, yes)
	case specs.OpGreaterThan:
		return w.greater(unix.BPF_JGT, yes, no)
	case specs.OpGreaterEqual:
		return w.greater(unix.BPF_JGE, yes, no)
	case specs.OpLessEqual:
		return w.greater(unix.BPF_JGT, no, yes)
	default: // OpLessThan; the operator was checked
		return w.greater(unix.BPF_JGE, no, yes)
	}
}

// words compares a 64-bit argument as the two 32-bit words that classic BPF can load. Not wide, only the low one counts.
type words struct {
	*asm
	lo, hi      uint32 // offsets
	wide        bool
	mask, value uint64
}

func (w *words) equal(yes, no label) label {
	same := w.part(w.lo, uint32(w.mask), uint32(w.value), yes, no)
	if !w.wide {
		return same
	}
	return w.part(w.hi, uint32(w.mask>>32), uint32(w.value>>32), same, no)
}

func (w *words) part(offset, mask, value uint32, yes, no label) label {
	switch {
	case value&^mask != 0:
		return w.follow(no) // no argument matches
	case mask == 0:
		return w.follow(yes)
	}
	test := w.jump(unix.BPF_JEQ, value, yes, no)
	return w.load(offset, w.and(mask, test))
}

// greater compares with op, BPF_JGT or BPF_JGE.
func (w *words) greater(op uint16, yes, no label) label {
	low := w.load(w.lo, w.jump(op, uint32(w.value), yes, no))
	if !w.wide {
		return low
	}
	equal := w.jump(unix.BPF_JEQ, uint32(w.value>>32), low, no)
	return w.load(w.hi, w.jump(unix.BPF_JGT, uint32(w.value>>32), yes, equal))
}
