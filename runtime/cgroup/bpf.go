package cgroup

import (
	"bytes"
	"encoding/binary"
	"os"
	"runtime"
	"unsafe"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// insn is struct bpf_insn.
type insn struct {
	code byte
	regs byte // destination in the low half, source in the high
	off  int16
	imm  int32
}

const (
	opLoadWord = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMove     = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X // 32 bits
	opMoveImm  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opAndImm   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opShiftImm = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	// 32-bit jumps (Linux 5.1): minor and major numbers above 2^31 compare as they are.
	opJumpNotEqual = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	opJumpEqual    = unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K
	opExit         = unix.BPF_JMP | unix.BPF_EXIT
)

// Registers of the device program. r1 comes in as struct bpf_cgroup_dev_ctx: access_type (access<<16 | kind),
// major, minor.
const (
	rResult = 0
	rCtx    = 1
	rKind   = 2
	rAccess = 3 // what of the request is not yet allowed
	rMajor  = 4
	rMinor  = 5
	rTemp   = 6
)

// deviceProgram assembles the eBPF program that decides as rules say. The rules are tried from the last to the
// first; one that matches the device takes the accesses it allows off the request, and the request is granted when
// nothing is left of it, refused when a rule denies any of what is left.
//
//	load kind, access, major, minor
//	for each rule, last first:
//	        if kind, major or minor differ: goto next
//	    allow:  access &^= rule.access; if access != 0 goto next; return 1
//	    deny:   if access & rule.access == 0 goto next; return 0
//	next:
//	return 0
func deviceProgram(rules []rule) []insn {
	p := []insn{
		{opLoadWord, rKind | rCtx<<4, 0, 0},
		{opMove, rAccess | rKind<<4, 0, 0},
		{opAndImm, rKind, 0, 0xffff},
		{opShiftImm, rAccess, 0, 16},
		{opLoadWord, rMajor | rCtx<<4, 4, 0},
		{opLoadWord, rMinor | rCtx<<4, 8, 0},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		p = append(p, ruleProgram(rules[i])...)
	}
	return append(p, insn{opMoveImm, rResult, 0, 0}, insn{opExit, 0, 0, 0})
}

func ruleProgram(r rule) []insn {
	var match []insn
	if r.kind != 'a' {
		kind := int32(unix.BPF_DEVCG_DEV_BLOCK)
		if r.kind == 'c' {
			kind = unix.BPF_DEVCG_DEV_CHAR
		}
		match = append(match, insn{opJumpNotEqual, rKind, 0, kind})
	}
	if r.major != wild {
		match = append(match, insn{opJumpNotEqual, rMajor, 0, int32(r.major)})
	}
	if r.minor != wild {
		match = append(match, insn{opJumpNotEqual, rMinor, 0, int32(r.minor)})
	}
	var act []insn
	if r.allow {
		act = []insn{
			{opAndImm, rAccess, 0, int32(accAll &^ r.access)},
			{opJumpNotEqual, rAccess, 2, 0},
			{opMoveImm, rResult, 0, 1},
			{opExit, 0, 0, 0},
		}
	} else {
		act = []insn{
			{opMove, rTemp | rAccess<<4, 0, 0},
			{opAndImm, rTemp, 0, int32(r.access)},
			{opJumpEqual, rTemp, 2, 0},
			{opMoveImm, rResult, 0, 0},
			{opExit, 0, 0, 0},
		}
	}
	for i := range match {
		match[i].off = int16(len(match) - 1 - i + len(act))
	}
	return append(match, act...)
}

// attachDevices makes rules the device rules of the v2 group dir, on top of its parents': all must agree. nil is no
// rules. A program attached before by the same call is replaced, with no moment without one.
func attachDevices(dir string, rules []rule) error {
	fd, err := open(dir, unix.O_DIRECTORY|unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := attachedDevices(fd)
	if err != nil {
		return err
	}
	if rules != nil {
		prog, err := loadDevices(deviceProgram(rules))
		if err != nil {
			return err
		}
		defer unix.Close(prog)
		if err := bpfAttach(unix.BPF_PROG_ATTACH, fd, prog, unix.BPF_F_ALLOW_MULTI); err != nil {
			return &os.PathError{Op: "attach device rules to", Path: dir, Err: err}
		}
	}
	for _, p := range old {
		err := bpfAttach(unix.BPF_PROG_DETACH, fd, p, 0)
		unix.Close(p)
		if err != nil {
			return &os.PathError{Op: "detach old device rules from", Path: dir, Err: err}
		}
	}
	return nil
}

// bpf is bpf(2). What attr points to is pinned by the callers: as a uint64 in it, it is no pointer to Go.
func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR, unix.EAGAIN: // the verifier was interrupted by a signal
			continue
		}
		return -1, errno
	}
}

func loadDevices(p []insn) (int, error) {
	var code bytes.Buffer
	if err := binary.Write(&code, binary.NativeEndian, p); err != nil {
		return -1, err
	}
	license := []byte("Apache-2.0\x00") // no GPL-only helper is called
	insns := code.Bytes()
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&insns[0])
	pin.Pin(&license[0])
	attr := struct {
		progType, count    uint32
		insns, license     uint64
		logLevel, logSize  uint32
		log                uint64
		kernVersion, flags uint32
		name               [16]byte
	}{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		count:    uint32(len(p)),
		insns:    uint64(uintptr(unsafe.Pointer(&insns[0]))),
		license:  uint64(uintptr(unsafe.Pointer(&license[0]))),
		name:     [16]byte{'h', 'u', 'l', 'l', '_', 'd', 'e', 'v', 'i', 'c', 'e', 's'},
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return -1, errdef.Unavailable("load device rules into the kernel: %w", err)
	}
	return fd, nil
}

func bpfAttach(cmd, dir, prog int, flags uint32) error {
	attr := struct{ target, prog, kind, flags uint32 }{uint32(dir), uint32(prog), unix.BPF_CGROUP_DEVICE, flags}
	_, err := bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// attachedDevices opens the device programs attached to the group itself. They are closed by the caller.
func attachedDevices(dir int) ([]int, error) {
	ids := make([]uint32, 64) // BPF_CGROUP_MAX_PROGS
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	attr := struct {
		target, kind, query, attached uint32
		ids                           uint64
		count, _                      uint32
	}{target: uint32(dir), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, errdef.Unavailable("query device rules: %w", err)
	}
	var progs []int
	for _, id := range ids[:min(int(attr.count), len(ids))] {
		a := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&a), unsafe.Sizeof(a))
		if err != nil {
			continue // detached meanwhile
		}
		unix.CloseOnExec(fd)
		progs = append(progs, fd)
	}
	return progs, nil
}
