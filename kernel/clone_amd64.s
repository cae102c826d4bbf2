#include "textflag.h"

// A child that shares memory with its parent (CLONE_VM) shares the stack too. So nothing that the parent still
// needs may lie on the stack below the caller's frame while the child runs: the return address stays in R12,
// which the kernel preserves.

// func rawClone(args *CloneArgs, size uintptr) (r, errno uintptr)
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-32
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	$435, AX // clone3
	POPQ	R12
	SYSCALL
	PUSHQ	R12
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	NEGQ	AX
	MOVQ	$-1, r+16(FP)
	MOVQ	AX, errno+24(FP)
	RET
ok:
	MOVQ	AX, r+16(FP)
	MOVQ	$0, errno+24(FP)
	RET

// The child runs beside its parent: it uses registers only, waits until one of two descriptors has an event and exits.
//
// func rawCloneWait(args *CloneArgs, size uintptr, fds *[2]unix.PollFd) (r, errno uintptr)
TEXT ·rawCloneWait(SB),NOSPLIT|NOFRAME,$0-40
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	fds+16(FP), R12
	MOVQ	$435, AX // clone3
	SYSCALL
	CMPQ	AX, $0
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	NEGQ	AX
	MOVQ	$-1, r+24(FP)
	MOVQ	AX, errno+32(FP)
	RET
ok:
	MOVQ	AX, r+24(FP)
	MOVQ	$0, errno+32(FP)
	RET
child:
	MOVQ	R12, DI
	MOVQ	$2, SI
	MOVQ	$0, DX
	MOVQ	$0, R10
	MOVQ	$0, R8
	MOVQ	$271, AX // ppoll, without end
	SYSCALL
	MOVQ	$0, DI
	MOVQ	$231, AX // exit_group
	SYSCALL
	JMP	child
