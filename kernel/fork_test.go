package kernel

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// start forks p and waits until it executed or failed.
func start(t *testing.T, p *Program, o ForkOptions) (int, error) {
	t.Helper()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	pid, pidfd, err := p.Fork(o)
	unix.Close(pipe[1])
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(pidfd)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return pid, p.Wait(ctx, pipe[0], 0)
}

func program(t testing.TB) *Program {
	t.Helper()
	p, err := NewProgram()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestForkExecutes(t *testing.T) {
	p := program(t)
	p.Call("run sh", unix.SYS_EXECVE, "/bin/sh", p.Strings([]string{"sh", "-c", "exit $N"}), p.Strings([]string{"N=7"}))
	pid, err := start(t, p, ForkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ws, err := Reap(pid)
	if err != nil || ws.ExitStatus() != 7 {
		t.Fatalf("want exit 7, got %v, %v", ws, err)
	}
}

func TestForkNamesTheFailedCall(t *testing.T) {
	p := program(t)
	l := p.NewLabel()
	p.Call("open nothing", unix.SYS_OPENAT, unix.AT_FDCWD, "/nonexistent/a", unix.O_RDONLY, 0).Allow(unix.ENOENT).Else(l)
	p.Exit(3)
	p.Mark(l)
	p.Call("remove nothing", unix.SYS_UNLINKAT, unix.AT_FDCWD, "/nonexistent/b", 0)
	pid, err := start(t, p, ForkOptions{})
	if !errors.Is(err, unix.ENOENT) || err.Error() != "remove nothing: no such file or directory" {
		t.Errorf("want the failed call by name, got %v", err)
	}
	if ws, err := Reap(pid); err != nil || ws.ExitStatus() != 127 {
		t.Errorf("want exit 127, got %v, %v", ws, err)
	}
}

func TestForkAgainAfterFailure(t *testing.T) {
	p := program(t)
	p.Call("close nothing", unix.SYS_CLOSE, -1).Allow(unix.EBADF)
	p.Exit(6)
	if _, _, err := p.Fork(ForkOptions{CgroupFD: 1 << 20}); !errors.Is(err, unix.EBADF) {
		t.Fatalf("want a bad descriptor, got %v", err)
	}
	pid, err := start(t, p, ForkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ws, err := Reap(pid); err != nil || ws.ExitStatus() != 6 {
		t.Fatalf("want exit 6, got %v, %v", ws, err)
	}
}

func TestForkTwice(t *testing.T) {
	for _, share := range []bool{false, true} {
		t.Run(fmt.Sprintf("share=%v", share), func(t *testing.T) { testForkTwice(t, share) })
	}
}

func testForkTwice(t *testing.T, share bool) {
	p := program(t)
	flags := uint64(unix.CLONE_PARENT)
	if share {
		flags |= VFork
	}
	pidfd := p.Register()
	in := p.NewLabel()
	pid := p.Clone("fork again", flags, pidfd, in).Result()
	p.Exit(0)
	p.Mark(in)
	p.Call("run true", unix.SYS_EXECVE, "/bin/sh", p.Strings([]string{"sh", "-c", "exit 9"}), p.Strings(nil))
	first, err := start(t, p, ForkOptions{ShareFiles: true, ShareMemory: share})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Reap(first); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PIDFD, p.Value(pidfd), &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Errorf("wait by the pidfd of the second child: %v", err)
	}
	unix.Close(p.Value(pidfd))
	ws, err := Reap(p.Value(pid))
	if err != nil || ws.ExitStatus() != 9 {
		t.Fatalf("want exit 9 of the grandchild, got %v, %v", ws, err)
	}
}

// TestForkUnderGC forks while other threads allocate and collect: the child must not need the runtime.
func TestForkUnderGC(t *testing.T) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
			}
			keep = append(keep, make([]byte, 1<<16))
			if len(keep) > 64 {
				keep = nil
				runtime.GC()
			}
		}
	}()
	defer func() { close(stop); <-done }()
	for range 200 {
		p, err := NewProgram()
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			p.Call("getpid", unix.SYS_GETPID)
		}
		p.Exit(5)
		pid, err := start(t, p, ForkOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ws, err := Reap(pid)
		if err != nil || ws.ExitStatus() != 5 {
			t.Fatalf("want exit 5, got %v, %v", ws, err)
		}
		p.Close()
	}
}

func BenchmarkFork(b *testing.B)  { benchmarkFork(b, ForkOptions{}) }
func BenchmarkVFork(b *testing.B) { benchmarkFork(b, ForkOptions{ShareMemory: true}) }

func benchmarkFork(b *testing.B, o ForkOptions) {
	for b.Loop() {
		p, err := NewProgram()
		if err != nil {
			b.Fatal(err)
		}
		p.Exit(0)
		pid, pidfd, err := p.Fork(o)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(pidfd)
		if _, err := Reap(pid); err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
}
