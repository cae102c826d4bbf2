// Package kernel holds the Linux calls that the standard library lacks: forking a Go process without a second
// exec, and the descriptor-based mount API with its fall-backs for older kernels.
//
// A child made by fork(2) from a Go process has one thread, no scheduler and no garbage collector it may wake;
// it must not allocate and must not grow its stack. So what it does is not code but data: a Program, a list of
// raw system calls with their arguments ready in memory, which a loop that allocates nothing carries out.
//
//	p := kernel.NewProgram()
//	fd := p.Call("open %s", unix.SYS_OPENAT2, ...).Result()
//	p.Call("enter it", unix.SYS_FCHDIR, fd)
//	p.Call("run it", unix.SYS_EXECVE, kernel.String("/bin/true"), argv, env)
//	proc, err := p.Fork(kernel.ForkOptions{})
//
// Beware: the buffers of a Program are shared with the child by copy-on-write only. What the child has to tell the
// parent goes through registers, which live in a shared page.
package kernel
