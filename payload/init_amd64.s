#include "textflag.h"

// Process 1 of a container with --init; see init.go. It is copied out of here, so it refers to nothing but its stack and
// registers. R15 is the stack as the kernel left it: argc, our name, the path of the command, its arguments, 0,
// environment, 0. Below it, from SP: the set of all signals, the signal mask before, a word, siginfo.
#define ALL	0(SP)
#define BEFORE	8(SP)
#define WORD	16(SP)
#define INFO	32(SP)

#define SYS(n)	MOVQ $n, AX; SYSCALL

TEXT start<>(SB),NOSPLIT|NOFRAME,$0
	MOVQ	SP, R15
	SUBQ	$256, SP
	MOVQ	$-1, AX
	MOVQ	AX, ALL
	MOVQ	$2, DI // SIG_SETMASK
	LEAQ	ALL, SI
	LEAQ	BEFORE, DX
	MOVQ	$8, R10
	SYS(14) // rt_sigprocmask
	MOVQ	$17, DI // SIGCHLD
	XORQ	SI, SI
	XORQ	DX, DX
	XORQ	R10, R10
	XORQ	R8, R8
	SYS(56) // clone
	TESTQ	AX, AX
	JEQ	child
	JMI	failed
	MOVQ	AX, R14 // the command
	XORQ	R12, R12 // whether it has ended
wait:
	LEAQ	ALL, DI
	LEAQ	INFO, SI
	XORQ	DX, DX
	MOVQ	$8, R10
	SYS(128) // rt_sigtimedwait
	TESTQ	AX, AX
	JLE	wait // EINTR, when it was stopped and goes on
	CMPQ	AX, $17
	JEQ	reap
	MOVQ	R14, DI
	MOVQ	AX, SI
	SYS(62) // kill
	JMP	wait
reap:
	MOVQ	$-1, DI
	LEAQ	WORD, SI
	MOVQ	$1, DX // WNOHANG
	XORQ	R10, R10
	SYS(61) // wait4
	TESTQ	AX, AX
	JLE	reaped
	CMPQ	AX, R14
	JNE	reap
	MOVL	WORD, R13
	MOVQ	$1, R12
	JMP	reap
reaped:
	TESTQ	R12, R12
	JEQ	wait
	MOVQ	R13, DI
	ANDQ	$0x7f, DI
	JNE	signaled
	MOVQ	R13, DI
	SHRQ	$8, DI
	ANDQ	$0xff, DI
	JMP	exit
signaled:
	ADDQ	$128, DI
exit:
	SYS(231) // exit_group
	JMP	exit

// The command leads a process group, in the foreground of the terminal if there is one: what is typed there goes to it
// alone, and not through us once more.
child:
	XORQ	DI, DI
	XORQ	SI, SI
	SYS(109) // setpgid
	SYS(39) // getpid
	MOVL	AX, WORD
	XORQ	DI, DI
	MOVQ	$0x5410, SI // TIOCSPGRP
	LEAQ	WORD, DX
	SYS(16) // ioctl; ENOTTY mostly
	MOVQ	$2, DI
	LEAQ	BEFORE, SI
	XORQ	DX, DX
	MOVQ	$8, R10
	SYS(14) // rt_sigprocmask
	MOVQ	16(R15), DI
	LEAQ	24(R15), SI
	MOVQ	0(R15), CX
	LEAQ	16(R15)(CX*8), DX
	SYS(59) // execve
	MOVQ	AX, R14
failed: // "init: cannot run the command\n"
	MOVQ	$0x6163203a74696e69, AX
	MOVQ	AX, 0(SP)
	MOVQ	$0x6e757220746f6e6e, AX
	MOVQ	AX, 8(SP)
	MOVQ	$0x6d6f632065687420, AX
	MOVQ	AX, 16(SP)
	MOVQ	$0x0a646e616d, AX
	MOVQ	AX, 24(SP)
	MOVQ	$2, DI
	LEAQ	0(SP), SI
	MOVQ	$29, DX
	SYS(1) // write
	MOVQ	$126, DI
	CMPQ	R14, $-2 // ENOENT
	JNE	exit
	MOVQ	$127, DI
	JMP	exit

TEXT end<>(SB),NOSPLIT|NOFRAME,$0
	RET

// func initCode() (start, end unsafe.Pointer)
TEXT ·initCode(SB),NOSPLIT,$0-16
	MOVQ	$start<>(SB), AX
	MOVQ	AX, start+0(FP)
	MOVQ	$end<>(SB), AX
	MOVQ	AX, end+8(FP)
	RET
