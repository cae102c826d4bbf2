#include "textflag.h"

// See init_amd64.s. R19 is the stack as the kernel left it.
#define ALL	(RSP)
#define BEFORE	8(RSP)
#define WORD	16(RSP)

#define SYS(n)	MOVD $n, R8; SVC

TEXT start<>(SB),NOSPLIT|NOFRAME,$0
	MOVD	RSP, R19
	SUB	$256, RSP
	MOVD	$-1, R0
	MOVD	R0, (RSP)
	MOVD	$2, R0 // SIG_SETMASK
	MOVD	RSP, R1
	ADD	$8, RSP, R2
	MOVD	$8, R3
	SYS(135) // rt_sigprocmask
	MOVD	$17, R0 // SIGCHLD
	MOVD	ZR, R1
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	SYS(220) // clone
	CBZ	R0, child
	TBNZ	$63, R0, failed
	MOVD	R0, R20 // the command
	MOVD	ZR, R21 // whether it has ended
wait:
	MOVD	RSP, R0
	ADD	$32, RSP, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	SYS(137) // rt_sigtimedwait
	CMP	$0, R0
	BLE	wait // EINTR
	CMP	$17, R0
	BEQ	reap
	MOVD	R0, R1
	MOVD	R20, R0
	SYS(129) // kill
	B	wait
reap:
	MOVD	$-1, R0
	ADD	$16, RSP, R1
	MOVD	$1, R2 // WNOHANG
	MOVD	ZR, R3
	SYS(260) // wait4
	CMP	$0, R0
	BLE	reaped
	CMP	R20, R0
	BNE	reap
	MOVWU	16(RSP), R22
	MOVD	$1, R21
	B	reap
reaped:
	CBZ	R21, wait
	AND	$0x7f, R22, R0
	CBNZ	R0, signaled
	LSR	$8, R22, R0
	AND	$0xff, R0, R0
	B	exit
signaled:
	ADD	$128, R0, R0
exit:
	SYS(94) // exit_group
	B	exit
child:
	MOVD	ZR, R20
	MOVD	ZR, R0
	MOVD	ZR, R1
	SYS(154) // setpgid
	SYS(172) // getpid
	MOVW	R0, 16(RSP)
	MOVD	ZR, R0
	MOVD	$0x5410, R1 // TIOCSPGRP
	ADD	$16, RSP, R2
	SYS(29) // ioctl
	MOVD	$2, R0
	ADD	$8, RSP, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	SYS(135) // rt_sigprocmask
	MOVD	16(R19), R0
	ADD	$24, R19, R1
	MOVD	0(R19), R3
	ADD	$16, R19, R2
	ADD	R3<<3, R2, R2
	SYS(221) // execve
	MOVD	R0, R20
failed: // "init: cannot run the command\n"
	MOVD	$0x6163203a74696e69, R0
	MOVD	R0, (RSP)
	MOVD	$0x6e757220746f6e6e, R0
	MOVD	R0, 8(RSP)
	MOVD	$0x6d6f632065687420, R0
	MOVD	R0, 16(RSP)
	MOVD	$0x0a646e616d, R0
	MOVD	R0, 24(RSP)
	MOVD	$2, R0
	MOVD	RSP, R1
	MOVD	$29, R2
	SYS(64) // write
	MOVD	$126, R0
	CMN	$2, R20 // ENOENT
	BNE	exit
	MOVD	$127, R0
	B	exit

TEXT end<>(SB),NOSPLIT|NOFRAME,$0
	RET

// func initCode() (start, end unsafe.Pointer)
TEXT ·initCode(SB),NOSPLIT,$0-16
	MOVD	$start<>(SB), R0
	MOVD	R0, start+0(FP)
	MOVD	$end<>(SB), R0
	MOVD	R0, end+8(FP)
	RET
