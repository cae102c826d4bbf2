package kernel

import (
	"runtime/debug"
	"testing"
	"unsafe"
)

//go:noinline
func deep(n int) int {
	var a [128]byte
	a[n%len(a)] = byte(n)
	if n == 0 {
		return 0
	}
	return deep(n-1) + int(a[(n+1)%len(a)])
}

// TestDeepStack: a stack that has grown already is not copied again, so what lies on it stays where it is.
func TestDeepStack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which makes unused stacks smaller
	moved := func(before func()) bool {
		c := make(chan bool)
		go func() {
			before()
			var here byte
			at := uintptr(unsafe.Pointer(&here))
			deep(60) // some 12 KiB
			c <- at != uintptr(unsafe.Pointer(&here))
		}()
		return <-c
	}
	if moved(DeepStack) {
		t.Error("the stack was copied")
	}
	if !moved(func() {}) {
		t.Error("this test cannot fail: the stack was big enough without")
	}
}
