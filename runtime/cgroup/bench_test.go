package cgroup

import (
	"context"
	"fmt"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// BenchmarkMake is what a container's life costs in control groups, without processes.
func BenchmarkMake(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	name := fmt.Sprintf("hull-bench-%d", os.Getpid())
	l := Detect()
	top, err := Open(l, name)
	if err != nil {
		b.Fatal(err)
	}
	defer top.Destroy(context.Background())
	res := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(100))},
		CPU: &specs.LinuxCPU{Quota: ptr(int64(100000)), Period: ptr(uint64(100000))}}
	b.Run("make", func(b *testing.B) {
		for b.Loop() {
			g, _, err := Make(l, name+"/c", res)
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := g.Destroy(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("destroy", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			g, _, err := Make(l, name+"/c", res)
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := g.Destroy(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("detect", func(b *testing.B) {
		for b.Loop() {
			Detect()
		}
	})
}
