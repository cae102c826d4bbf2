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

// func rawCloneWait(args *CloneArgs, size uintptr, fd uintptr, buf unsafe.Pointer) (r, errno uintptr)
TEXT ·rawCloneWait(SB),NOSPLIT|NOFRAME,$0-48
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	fd+16(FP), R9
	MOVD	buf+24(FP), R10
	MOVD	$435, R8 // clone3
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCC	ok
	NEG	R0, R0
	MOVD	$-1, R4
	MOVD	R4, r+32(FP)
	MOVD	R0, errno+40(FP)
	RET
ok:
	MOVD	R0, r+32(FP)
	MOVD	ZR, errno+40(FP)
	RET
child:
	MOVD	R9, R0
	MOVD	R10, R1
	MOVD	$1, R2
	MOVD	$63, R8 // read
	SVC
	MOVD	$0, R0
	MOVD	$94, R8 // exit_group
	SVC
	B	child
