package kernel

// DeepStack gives the calling goroutine a stack of 32 KiB at once. A goroutine begins with 2 KiB and is copied each time it
// needs double that; for each copy Go walks all frames there are, and reads its tables of where they have pointers, which in a
// process that lives for some milliseconds are pages nobody has touched yet. Called first, there is one frame to walk.
func DeepStack() { frame(false) }

// frame has a frame of that size, and does nothing with it.
//
//go:noinline
func frame(use bool) (sum byte) {
	if use {
		var a [20 << 10]byte
		for i := range a {
			a[i] = sum + byte(i)
			sum += a[i/2]
		}
	}
	return sum
}
