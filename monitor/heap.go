package monitor

import (
	"math"
	"runtime"
	"runtime/debug"
)

// A monitor sleeps for nearly all of its life, and there are many. To collect garbage costs one of them more memory than it
// gives back: a start leaves some 300 KiB, while Go keeps lists for each size of objects, for this collection and the
// next, of two pages each, half a megabyte together; and it collects every two minutes even if nothing happens. So a
// monitor begins without (GOGC=off). The limit forces the first collection on who has been busy, after some 2 MiB, and
// from then on the heap has Go's usual pace.
var heapSettings = []string{
	"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=6MiB",
	// One P, which needs no look at cgroups; and no sample of allocations, which takes three pages.
	"GODEBUG=containermaxprocs=0,updatemaxprocs=0,memprofilerate=0",
}

// heapPercent is GOGC of a monitor that has been busy.
const heapPercent = 50

// paceHeap lets the first collection be followed by others at their usual pace: at the limit alone, a monitor that needs
// more than it would do nothing else.
func paceHeap() {
	first := new([64]byte) // what is collected then
	runtime.AddCleanup(first, func(int) {
		debug.SetGCPercent(heapPercent)
		debug.SetMemoryLimit(math.MaxInt64)
	}, 0)
}
