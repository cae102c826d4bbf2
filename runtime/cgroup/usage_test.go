package cgroup

import (
	"slices"
	"testing"
	"time"
)

func TestIOStat(t *testing.T) {
	bytes, ios := ioStat("8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n7:0 \n252:1 rbytes=5\nnonsense\n")
	if want := []IO{{8, 16, "read", 1459200}, {8, 16, "write", 314773504}, {252, 1, "read", 5}}; !slices.Equal(bytes, want) {
		t.Errorf("want %v, got %v", want, bytes)
	}
	if want := []IO{{8, 16, "read", 192}, {8, 16, "write", 353}}; !slices.Equal(ios, want) {
		t.Errorf("want %v, got %v", want, ios)
	}
	got := blkioTable("8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nTotal 4096\n")
	if want := []IO{{8, 0, "Read", 4096}, {8, 0, "Write", 0}, {8, 0, "Total", 4096}}; !slices.Equal(got, want) {
		t.Errorf("want %v, got %v", want, got)
	}
}

func TestUsage(t *testing.T) {
	l := Detect()
	g := mustMake(t, l, parent(t, l)+"/u", nil)
	needs(t, l, "memory")
	needs(t, l, "cpu")
	cmd := start(t, g, "a=$(head -c 4000000 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; read x")
	var u Usage
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if u = g.Usage(); u.CPU > 5*time.Millisecond && u.Memory > 3_000_000 && u.Pids > 0 && len(u.MemoryStat) > 5 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a busy group uses %+v", u)
		}
	}
	if u.MemoryPeak < u.Memory/2 || u.MemoryLimit != 0 || u.PidsLimit != 0 {
		t.Errorf("peak %d, limits %d and %d of a group with %d bytes and no limits", u.MemoryPeak, u.MemoryLimit, u.PidsLimit, u.Memory)
	}
	if err := g.Kill(deadline(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	cmd.Wait()
}
