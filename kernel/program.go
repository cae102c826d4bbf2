package kernel

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reg is a register of a Program: it keeps the result of a call for later calls, and for the parent.
type Reg int32

// Label is a place in a Program to jump to.
type Label int32

const (
	regFailed Reg = iota // index of the call that failed, plus one
	regErrno             // its errno
	regAt                // index of the call under way
	firstFree            // the first register that calls may use
)

const (
	maxRegs = 1024
	noReg   = Reg(-1)
	next    = Label(-1)
)

// The pseudo calls of the interpreter. Numbers are far above any system call's.
const (
	opJump  = 1<<20 + iota // jump
	opFail                 // fail with errno arg0
	opExit                 // end the process with status arg0
	opStore                // store the 32 bits of arg1 at the address arg0
	opClone                // clone3, with a second child
	opByte                 // fail with errno arg2 unless the byte at arg0 equals arg1

)

// Call is one step of a Program. Its methods refine it and return it. It is packed: a container takes some hundreds, and
// the pages they are on stay with its monitor.
type Call struct {
	p       *Program
	what    string
	arg     [6]uintptr
	allow   [4]uint16 // errnos
	nr      uint32
	out     Reg
	onAllow Label
	inChild Label // of opClone
	regs    uint8 // bit i: arg[i] is the number of a register
	allowed uint8
}

// Program is a list of system calls to be carried out by a forked child. Build it, Fork it once, Close it.
type Program struct {
	calls  []Call
	labels []int32
	keep   []unsafe.Pointer // what the calls point into
	text   []byte           // strings of calls: the rest of the last piece of memory for them
	regs   *[maxRegs]int64
	page   []byte
	used   Reg
	linked bool
}

// NewProgram returns an empty program.
func NewProgram() (*Program, error) {
	page, err := unix.Mmap(-1, 0, maxRegs*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map registers: %w", err)
	}
	return &Program{
		calls: make([]Call, 0, 512), // of a size that the kernel gives memory for as it is used
		page:  page,
		regs:  (*[maxRegs]int64)(unsafe.Pointer(&page[0])),
		used:  firstFree,
	}, nil
}

// Close frees the registers and the calls. The results are gone with them.
func (p *Program) Close() error {
	p.regs = nil
	p.discard()
	return unix.Munmap(p.page)
}

// discard gives the pages of the calls back, which are whole ones: a monitor does not collect its garbage. What the collector
// finds there is zero.
func (p *Program) discard() {
	page := uintptr(os.Getpagesize())
	calls := p.calls[:cap(p.calls)]
	p.calls = nil
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(calls))), uintptr(len(calls))*unsafe.Sizeof(Call{}))
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % page
	if whole := uintptr(len(b)) - skip; skip < uintptr(len(b)) && whole >= page {
		_ = unix.Madvise(b[skip:skip+whole/page*page], unix.MADV_DONTNEED) // where it is refused they stay
	}
}

// Call appends a system call. Arguments are integers, Reg, string (passed NUL-terminated), []byte (its address) or
// unsafe.Pointer to heap memory. A result with an errno ends the program unless Allow names it.
func (p *Program) Call(what string, nr uintptr, args ...any) *Call {
	c := Call{p: p, what: what, nr: uint32(nr), out: noReg, onAllow: next}
	for i, a := range args {
		switch a := a.(type) {
		case int:
			c.arg[i] = uintptr(a)
		case uint:
			c.arg[i] = uintptr(a)
		case uint32:
			c.arg[i] = uintptr(a)
		case uint64:
			c.arg[i] = uintptr(a)
		case uintptr:
			c.arg[i] = a
		case Reg:
			c.arg[i], c.regs = uintptr(a), c.regs|1<<i
		case string:
			c.arg[i] = uintptr(p.terminated(a))
		case []byte:
			c.arg[i] = uintptr(p.pointer(a))
		case unsafe.Pointer:
			p.keep = append(p.keep, a)
			c.arg[i] = uintptr(a)
		case nil:
		default:
			panic(fmt.Sprintf("kernel: argument %d of %q is a %T", i, what, a))
		}
	}
	p.calls = append(p.calls, c)
	return &p.calls[len(p.calls)-1]
}

func (p *Program) pointer(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	p.keep = append(p.keep, unsafe.Pointer(&b[0]))
	return unsafe.Pointer(&b[0])
}

// terminated copies s with a NUL behind it.
func (p *Program) terminated(s string) unsafe.Pointer {
	if cap(p.text)-len(p.text) < len(s)+1 {
		p.text = make([]byte, 0, max(2048, len(s)+1))
		p.keep = append(p.keep, unsafe.Pointer(unsafe.SliceData(p.text)))
	}
	at := len(p.text)
	p.text = append(append(p.text, s...), 0)
	return unsafe.Pointer(&p.text[at])
}

// Strings is a NULL-terminated vector of C strings, as execve takes.
func (p *Program) Strings(ss []string) unsafe.Pointer {
	n := 0
	for _, s := range ss {
		n += len(s) + 1
	}
	text := make([]byte, 0, n+1)
	vec := make([]uintptr, len(ss)+1)
	for i, s := range ss {
		vec[i] = uintptr(len(text))
		text = append(append(text, s...), 0)
	}
	text = append(text, 0)
	base := uintptr(p.pointer(text))
	for i := range ss {
		vec[i] += base
	}
	p.keep = append(p.keep, unsafe.Pointer(&vec[0]))
	return unsafe.Pointer(&vec[0])
}

// Result keeps what the call returns and names the register. An allowed errno is kept negated, as the kernel returns it.
func (c *Call) Result() Reg {
	c.out = c.p.Register()
	return c.out
}

// Into keeps what the call returns in r.
func (c *Call) Into(r Reg) *Call {
	c.out = r
	return c
}

// Allow lets the program go on when the call fails with one of errs: at the label set by Else, or at the next call.
func (c *Call) Allow(errs ...syscall.Errno) *Call {
	for _, e := range errs {
		c.allow[c.allowed] = uint16(e)
		c.allowed++
	}
	return c
}

// Else says where to go on after an allowed failure.
func (c *Call) Else(l Label) *Call {
	c.onAllow = l
	return c
}

// Register reserves a register, initially zero. Its value is visible to the parent.
func (p *Program) Register() Reg {
	if p.used == maxRegs {
		panic("kernel: program needs too many registers")
	}
	p.used++
	return p.used - 1
}

// Value of a register, as the child left it.
func (p *Program) Value(r Reg) int { return int(p.regs[r]) }

// NewLabel returns a label to be put somewhere later by Mark.
func (p *Program) NewLabel() Label {
	p.labels = append(p.labels, -1)
	return Label(len(p.labels) - 1)
}

// Mark puts the label before the next call.
func (p *Program) Mark(l Label) { p.labels[l] = int32(len(p.calls)) }

// Jump goes on at the label.
func (p *Program) Jump(l Label) { p.Call("jump", opJump).onAllow = l }

// Fail ends the program with the errno.
func (p *Program) Fail(what string, e syscall.Errno) { p.Call(what, opFail, uintptr(e)) }

// Exit ends the process.
func (p *Program) Exit(status int) { p.Call("exit", opExit, status) }

// Store writes the low 32 bits of r at b[at:]; b must be an argument of a later call.
func (p *Program) Store(b []byte, at int, r Reg) {
	p.pointer(b)
	p.Call("store", opStore, uintptr(unsafe.Pointer(&b[at])), r)
}

// CheckByte ends the program with errno e unless b[at] is want.
func (p *Program) CheckByte(what string, b []byte, at int, want byte, e syscall.Errno) {
	p.pointer(b)
	p.Call(what, opByte, uintptr(unsafe.Pointer(&b[at])), uintptr(want), uintptr(e))
}

// Error is the failure of one call of a Program.
type Error struct {
	What  string
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.What + ": " + e.Errno.Error() }

// Unwrap returns the errno, so that errors.Is(err, unix.ENOENT) works.
func (e *Error) Unwrap() error { return e.Errno }

// failure returns what went wrong in the child, or nil.
func (p *Program) failure() error {
	if i := p.regs[regFailed]; i > 0 && i <= int64(len(p.calls)) {
		return &Error{p.calls[i-1].what, syscall.Errno(p.regs[regErrno])}
	}
	return nil
}

// At names the call under way, for whoever waits too long.
func (p *Program) At() string {
	if i := p.regs[regAt]; i >= 0 && i < int64(len(p.calls)) {
		return p.calls[i].what
	}
	return "?"
}

// link turns labels into call indexes, once: a program whose fork failed may be forked again.
func (p *Program) link() {
	if p.linked {
		return
	}
	p.linked = true
	for i := range p.calls {
		c := &p.calls[i]
		if c.onAllow != next {
			c.onAllow = Label(p.labels[c.onAllow])
		} else {
			c.onAllow = Label(i + 1)
		}
		if c.nr == opClone {
			c.inChild = Label(p.labels[c.inChild])
		}
	}
	runtime.KeepAlive(p.keep)
}

// Keep holds what a call points into alive as long as the program.
func (p *Program) Keep(a unsafe.Pointer) { p.keep = append(p.keep, a) }
