#include "textflag.h"

// See clone_amd64.s. Here the return address is in R30 all along.

// func rawClone(args *CloneArgs, size uintptr) (r, errno uintptr)
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-32
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	$435, R8 // clone3
	SVC
	CMN	$4095, R0
	BCC	ok
	NEG	R0, R0
	MOVD	$-1, R4
	MOVD	R4, r+16(FP)
	MOVD	R0, errno+24(FP)
	RET
ok:
	MOVD	R0, r+16(FP)
	MOVD	ZR, errno+24(FP)
	RET

// func rawCloneWait(args *CloneArgs, size uintptr, fds *[2]unix.PollFd) (r, errno uintptr)
TEXT ·rawCloneWait(SB),NOSPLIT|NOFRAME,$0-40
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	fds+16(FP), R9
	MOVD	$435, R8 // clone3
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCC	ok
	NEG	R0, R0
	MOVD	$-1, R4
	MOVD	R4, r+24(FP)
	MOVD	R0, errno+32(FP)
	RET
ok:
	MOVD	R0, r+24(FP)
	MOVD	ZR, errno+32(FP)
	RET
child:
	MOVD	R9, R0
	MOVD	$2, R1
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$73, R8 // ppoll, without end
	SVC
	MOVD	$0, R0
	MOVD	$94, R8 // exit_group
	SVC
	B	child
