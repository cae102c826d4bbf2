package seccomp

import (
	"fmt"
	"slices"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Compile turns s into a filter for the native architecture and all of s.Architectures. The warnings are about
// parts of s that have no effect here. Errors have the kind errdef.ErrInvalid.
//
// Where the runtime-spec is silent:
//
//   - A call newer than every call the profile names, and a number no architecture table knows, fails with ENOSYS
//     instead of the default action, so that a C library falls back to the older call (as runc does). Not so when
//     the default action lets calls through.
//   - A call on an architecture that is not listed fails with ENOSYS, or is killed if that is the default action
//     (libseccomp always kills).
//   - Of several rules for one call, one without conditions outranks those with; otherwise the first that matches
//     wins. A rule whose action is the default action is left out first (as in runc).
//   - Conditions of a rule must all hold, but if two are about the same argument any one of them is enough (as in
//     runc; profiles rely on it).
//   - Arguments are compared as 64 bits, on 32-bit architectures as 32 (as in libseccomp).
//   - A rule for a call that i386 and others also reach through socketcall(2) or ipc(2) holds there too. A condition
//     cannot be checked there: an allowing rule then does not open that door, a denying one closes it.
func Compile(s *specs.LinuxSeccomp) (*Program, []string, error) { return CompileFor(s, Native()) }

// CompileFor is Compile for a machine whose native architecture is native.
func CompileFor(s *specs.LinuxSeccomp, native specs.Arch) (*Program, []string, error) {
	c := &compiler{}
	p := &Program{}
	var err error
	if c.fallback, err = action(s.DefaultAction, s.DefaultErrnoRet); err != nil {
		return nil, nil, err
	}
	if s.DefaultAction == specs.ActNotify {
		return nil, nil, errdef.Invalid("seccomp: %s cannot be the default action", specs.ActNotify)
	}
	if err := c.listArches(s.Architectures, native); err != nil {
		return nil, nil, err
	}
	for i := range s.Syscalls {
		if err := c.add(&s.Syscalls[i]); err != nil {
			return nil, nil, err
		}
		p.Notify = p.Notify || s.Syscalls[i].Action == specs.ActNotify
	}
	if p.Flags, err = flags(s.Flags, p.Notify); err != nil {
		return nil, nil, err
	}
	p.Filter = c.program()
	if len(p.Filter) > unix.BPF_MAXINSNS {
		return nil, nil, errdef.Invalid("seccomp: the profile needs %d instructions, the kernel takes %d", len(p.Filter), unix.BPF_MAXINSNS)
	}
	return p, c.warnings, nil
}

type compiler struct {
	fallback uint32 // what the default action returns
	plans    []*plan
	warnings []string
}

// plan is what happens to the calls of one architecture.
type plan struct {
	*arch
	verdicts map[uint32]*verdict
	named    []uint32 // every number the profile has a rule for, even one without effect
}

// verdict is what happens to one call.
type verdict struct {
	arch   *arch
	always bool
	value  uint32 // if always
	rules  []rule // otherwise: the first that matches, or the default action
}

type rule struct {
	value uint32
	conds []specs.LinuxSeccompArg
}

func (c *compiler) warn(format string, a ...any) {
	if w := fmt.Sprintf("seccomp: "+format, a...); !slices.Contains(c.warnings, w) {
		c.warnings = append(c.warnings, w)
	}
}

func (c *compiler) listArches(listed []specs.Arch, native specs.Arch) error {
	for _, name := range append([]specs.Arch{native}, listed...) {
		if slices.ContainsFunc(c.plans, func(p *plan) bool { return p.name == name }) {
			continue
		}
		switch a := findArch(name); {
		case a != nil:
			c.plans = append(c.plans, &plan{arch: a, verdicts: map[uint32]*verdict{}})
		case slices.Contains(tableless, name):
			c.warn("no system call table for %s: its calls are refused", name)
		default:
			return errdef.Invalid("seccomp: unknown architecture %q", name)
		}
	}
	return nil
}

// tableless are the architectures of the runtime-spec that arches leaves out.
var tableless = []specs.Arch{
	specs.ArchS390, specs.ArchMIPS64N32, specs.ArchMIPSEL64N32, specs.ArchPARISC, specs.ArchPARISC64,
	specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// add takes one entry of the profile into every plan.
func (c *compiler) add(s *specs.LinuxSyscall) error {
	value, err := action(s.Action, s.ErrnoRet)
	if err != nil {
		return err
	}
	alternatives, err := c.alternatives(s)
	if err != nil {
		return err
	}
	for _, name := range s.Names {
		if s.Action == specs.ActNotify && name == "write" {
			// The agent's own answer could depend on it: runc's and the kernel documentation's rule.
			return errdef.Invalid("seccomp: %s cannot be the action of write", specs.ActNotify)
		}
		found := false
		for _, p := range c.plans {
			if nr, ok := p.number(name); ok {
				found = true
				p.named = append(p.named, nr)
				c.put(p, nr, value, alternatives)
			}
			if door, cond, ok := p.muxed(name); ok {
				found = true
				nr, _ := p.number(door)
				p.named = append(p.named, nr)
				c.putMuxed(p, nr, value, cond, alternatives, name)
			}
		}
		if !found && !known(name) {
			c.warn("unknown system call %q", name)
		}
	}
	return nil
}

// alternatives returns the sets of conditions of which one must hold; one empty set if there are none.
func (c *compiler) alternatives(s *specs.LinuxSyscall) ([][]specs.LinuxSeccompArg, error) {
	var seen [6]bool
	twice := false
	for _, arg := range s.Args {
		if arg.Index > 5 {
			return nil, errdef.Invalid("seccomp: %v: argument %d: system calls have arguments 0 to 5", s.Names, arg.Index)
		}
		if !slices.Contains(operators, arg.Op) {
			return nil, errdef.Invalid("seccomp: %v: unknown operator %q", s.Names, arg.Op)
		}
		twice = twice || seen[arg.Index]
		seen[arg.Index] = true
	}
	if !twice {
		return [][]specs.LinuxSeccompArg{s.Args}, nil
	}
	c.warn("%v: several conditions on one argument: one of them is enough", s.Names)
	var each [][]specs.LinuxSeccompArg
	for i := range s.Args {
		each = append(each, s.Args[i:i+1])
	}
	return each, nil
}

var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

func (c *compiler) put(p *plan, nr, value uint32, alternatives [][]specs.LinuxSeccompArg) {
	if value == c.fallback {
		return
	}
	v := p.verdicts[nr]
	if v == nil {
		v = &verdict{arch: p.arch}
		p.verdicts[nr] = v
	}
	for _, conds := range alternatives {
		switch {
		case v.always:
		case len(conds) == 0:
			*v = verdict{arch: p.arch, always: true, value: value}
		default:
			v.rules = append(v.rules, rule{value, conds})
		}
	}
}

// putMuxed is put for the call inside the multiplexer nr, told there by cond.
func (c *compiler) putMuxed(p *plan, nr, value uint32, cond specs.LinuxSeccompArg, alternatives [][]specs.LinuxSeccompArg, name string) {
	inside := [][]specs.LinuxSeccompArg{{cond}}
	if len(alternatives[0]) > 0 {
		if lets(value) {
			return
		}
		if value != c.fallback {
			c.warn("%s: its arguments cannot be seen on %s: refused there altogether when made the old way", name, p.name)
		}
	}
	c.put(p, nr, value, inside)
}

// segment is a run of numbers with one verdict, up to the next segment.
type segment struct {
	start   uint32
	verdict *verdict
}

func same(a, b *verdict) bool { return a == b || a.always && b.always && a.value == b.value }

// program writes the filter.
func (c *compiler) program() []unix.SockFilter {
	stranger := &verdict{always: true, value: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	if kills(c.fallback) {
		stranger.value = c.fallback
	}
	type door struct {
		audit uint32
		entry label
	}
	var doors []door
	a := newAsm()
	// Last to first: the native architecture's tree, where nearly all calls go, ends up at the front.
	for i := len(c.plans) - 1; i >= 0; i-- {
		p := c.plans[i]
		if slices.ContainsFunc(doors, func(d door) bool { return d.audit == p.audit }) {
			continue
		}
		tree := a.tree(c.segments(p.audit, stranger), c.fallback)
		doors = append(doors, door{p.audit, a.load(offsetNr, tree)})
	}
	next := a.ret(stranger.value)
	for _, d := range doors {
		next = a.jump(unix.BPF_JEQ, d.audit, d.entry, next)
	}
	a.load(offsetArch, next)
	return a.program()
}

// segments covers all 2^32 numbers of one AUDIT_ARCH.
func (c *compiler) segments(audit uint32, stranger *verdict) []segment {
	byDefault := &verdict{always: true, value: c.fallback}
	unknown := byDefault
	if !lets(c.fallback) {
		unknown = &verdict{always: true, value: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	}
	var list []segment
	add := func(start uint32, v *verdict) {
		if n := len(list); n > 0 && list[n-1].start == start {
			list = list[:n-1]
		}
		if n := len(list); n > 0 && same(list[n-1].verdict, v) {
			return
		}
		list = append(list, segment{start, v})
	}
	half := func(p *plan) {
		newest := p.newest()
		add(p.bits, unknown)
		for _, nr := range p.numbers() {
			switch v := p.verdicts[nr]; {
			case v != nil:
				add(nr, v)
			case nr <= newest || p.column == colARM && nr >= armPrivate:
				add(nr, byDefault)
			default:
				add(nr, unknown)
			}
			add(nr+1, unknown)
		}
	}
	low := slices.IndexFunc(c.plans, func(p *plan) bool { return p.audit == audit && p.bits == 0 })
	high := slices.IndexFunc(c.plans, func(p *plan) bool { return p.audit == audit && p.bits != 0 })
	if low >= 0 {
		half(c.plans[low])
	} else {
		add(0, stranger)
	}
	switch {
	case high >= 0:
		half(c.plans[high])
	case audit == unix.AUDIT_ARCH_X86_64:
		add(x32Bit, stranger)
	}
	return list
}

// newest is the highest number the profile names: what is above it did not exist when the profile was written.
func (p *plan) newest() uint32 {
	var newest uint32
	for _, nr := range p.named {
		if p.column != colARM || nr < armPrivate {
			newest = max(newest, nr)
		}
	}
	if len(p.named) == 0 {
		return 1<<32 - 1
	}
	return newest
}

// tree writes a binary search for the number in the accumulator.
func (a *asm) tree(list []segment, fallback uint32) label {
	switch n := len(list); {
	case n == 1:
		return a.verdict(list[0].verdict, fallback)
	case n == 3 && list[1].start+1 == list[2].start && same(list[0].verdict, list[2].verdict):
		// One odd call out: an equality instead of two comparisons.
		odd := a.verdict(list[1].verdict, fallback)
		return a.jump(unix.BPF_JEQ, list[1].start, odd, a.verdict(list[0].verdict, fallback))
	default:
		right := a.tree(list[n/2:], fallback)
		left := a.tree(list[:n/2], fallback)
		return a.jump(unix.BPF_JGE, list[n/2].start, right, left)
	}
}

func (a *asm) verdict(v *verdict, fallback uint32) label {
	if v.always {
		return a.ret(v.value)
	}
	next := a.ret(fallback)
	for _, r := range slices.Backward(v.rules) {
		match := a.ret(r.value)
		for _, cond := range slices.Backward(r.conds) {
			match = a.cond(v.arch, cond, match, next)
		}
		next = match
	}
	return next
}
