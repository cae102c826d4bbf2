package monitor

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"hull/runtime/cgroup"

	"golang.org/x/sys/unix"
)

// The binary to measure; the tests' own has package testing in it.
func runtimeBinary(b *testing.B) string {
	bin, err := filepath.Abs("../bin/hull-runtime")
	if err != nil || !exists(bin) {
		b.Skip("make build first")
	}
	return bin
}

// cpu reports the processor time of this process and its children since it was called, for a machine that is busy.
func cpu(b *testing.B) (report func()) {
	used := func(who int) int64 {
		var r unix.Rusage
		unix.Getrusage(who, &r)
		return r.Utime.Nano() + r.Stime.Nano()
	}
	self, children := used(unix.RUSAGE_SELF), used(unix.RUSAGE_CHILDREN)
	return func() {
		b.ReportMetric(float64(used(unix.RUSAGE_SELF)-self)/float64(b.N), "own-cpu-ns/op")
		b.ReportMetric(float64(used(unix.RUSAGE_CHILDREN)-children)/float64(b.N), "child-cpu-ns/op")
	}
}

// BenchmarkSpawn is what a start waits for: from nothing to the first answer of a monitor.
func BenchmarkSpawn(b *testing.B) {
	bin, dir := runtimeBinary(b), tmpfs(b)
	defer cpu(b)()
	n := 0
	for b.Loop() {
		n++
		c, err := Open(b.Context(), Program{Path: bin}, filepath.Join(dir, strconv.Itoa(n)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Do(b.Context(), &Request{Op: OpState}); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// BenchmarkSpawnCgroup is BenchmarkSpawn into a cgroup.
func BenchmarkSpawnCgroup(b *testing.B) {
	bin, dir := runtimeBinary(b), tmpfs(b)
	g, err := cgroup.Ensure(cgroup.Detect(), "hull-bench.monitors")
	if err != nil {
		b.Skip(err)
	}
	defer g.Destroy(b.Context())
	defer cpu(b)()
	n := 0
	for b.Loop() {
		n++
		c, err := Open(b.Context(), Program{Path: bin, Cgroup: "hull-bench.monitors"}, filepath.Join(dir, strconv.Itoa(n)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Do(b.Context(), &Request{Op: OpState}); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// BenchmarkExec is the floor of BenchmarkSpawn: the same program, doing nothing.
func BenchmarkExec(b *testing.B) {
	bin := runtimeBinary(b)
	defer cpu(b)()
	for b.Loop() {
		cmd := osexec.Command(bin)
		cmd.Env = []string{"GOMAXPROCS=1"}
		r, w, _ := os.Pipe()
		cmd.Stdout = w
		cmd.Start()
		w.Close()
		r.Read(make([]byte, 1))
		r.Close()
		cmd.Wait()
	}
}

func tmpfs(b *testing.B) string {
	d, err := os.MkdirTemp("/dev/shm", "hull-bench")
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { os.RemoveAll(d) })
	return d
}
