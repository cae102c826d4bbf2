package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// parent returns the name of a group of this test alone, and checks at the end that nothing of it is left.
func parent(t *testing.T, l Layout) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if !l.Writable() {
		t.Skip(l.Reason)
	}
	name := fmt.Sprintf("hull-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "_"))
	t.Cleanup(func() {
		g, err := Open(l, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range g.dirs {
			entries, _ := os.ReadDir(d.path)
			for _, e := range entries {
				if e.IsDir() {
					t.Errorf("left behind: %s/%s", d.path, e.Name())
				}
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Destroy(ctx); err != nil {
			t.Error(err)
		}
		if g.Exists() {
			t.Errorf("%s still exists", g.Path())
		}
	})
	return name
}

func mustMake(t *testing.T, l Layout, path string, res *specs.LinuxResources) *Group {
	t.Helper()
	g, warnings, err := Make(l, path, res)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Log(warnings)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Destroy(ctx); err != nil {
			t.Error(err)
		}
	})
	return g
}

// start runs a shell script inside g, the way the runtime does: the forking thread's v1 groups are inherited and
// the v2 one is cloned into.
func start(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stderr = os.Stderr
	door, err := g.Door()
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: door.Dir >= 0, CgroupFD: max(door.Dir, 0)}
	if err := door.Forking(Detect(), cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// layouts are the ways of using this host: as it is, and each version alone.
func layouts(t *testing.T) map[string]Layout {
	l := Detect()
	if !l.Writable() {
		t.Skip(l.Reason)
	}
	only := func(v2 bool) Layout {
		return Layout{hierarchies: slices.DeleteFunc(slices.Clone(l.hierarchies), func(h hierarchy) bool { return h.v2 != v2 })}
	}
	all := map[string]Layout{"host": l}
	if v1 := only(false); v1.Writable() {
		all["v1"] = v1
		if v2 := only(true); v2.Writable() {
			all["v2"] = v2
		}
	}
	return all
}

func TestLife(t *testing.T) {
	for name, l := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			g := mustMake(t, l, parent(t, l)+"/c", nil)
			cmd := start(t, g, "sleep 60 & sleep 60 & wait")
			for i := 0; ; i++ {
				pids, err := g.Pids()
				if err != nil {
					t.Fatal(err)
				}
				if len(pids) == 3 && slices.Contains(pids, cmd.Process.Pid) {
					break
				}
				if i == 100 {
					t.Fatalf("pids %v, want 3 with %d", pids, cmd.Process.Pid)
				}
				time.Sleep(10 * time.Millisecond)
			}
			for _, d := range g.dirs {
				if pids, _ := readPids(unix.AT_FDCWD, d.path+"/cgroup.procs"); len(pids) != 3 {
					t.Errorf("%s has processes %v, want 3", d.path, pids)
				}
			}
			if _, _, err := Make(l, g.Path(), nil); !errors.Is(err, errdef.ErrConflict) {
				t.Errorf("second Make of a group in use: %v, want a conflict", err)
			}
			if err := g.Remove(deadline(t, 50*time.Millisecond)); err == nil || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
				t.Errorf("Remove with processes: %v, want their names", err)
			}
			if err := g.Destroy(deadline(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := g.Destroy(deadline(t, 5*time.Second)); err != nil {
				t.Errorf("second Destroy: %v", err)
			}
		})
	}
}

func TestKillForkBomb(t *testing.T) {
	for name, l := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			limit := int64(200)
			g := mustMake(t, l, parent(t, l)+"/c", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}})
			bomb := "ulimit -u 300 2>/dev/null; b() { b 2>/dev/null | b 2>/dev/null & }; b; sleep 60"
			if name == "v2" { // no pids controller: a bomb that is always two processes
				bomb = "b() { (b &) ; exit; }; (b &); sleep 60"
			}
			start(t, g, bomb+" 2>/dev/null")
			time.Sleep(200 * time.Millisecond)
			if err := g.Kill(deadline(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			if pids, err := g.Pids(); err != nil || len(pids) != 0 {
				t.Errorf("left: %v, %v", pids, err)
			}
		})
	}
}

func TestKillFrozenAndStopped(t *testing.T) {
	for name, l := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			g := mustMake(t, l, parent(t, l)+"/c", nil)
			start(t, g, "sleep 60 & kill -STOP $!; kill -STOP $$")
			time.Sleep(20 * time.Millisecond)
			if err := g.Freeze(deadline(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			if !g.Frozen() {
				t.Error("not frozen after Freeze")
			}
			// Somebody may have used the other freezer as well.
			if dir := g.dir("freezer"); dir != "" {
				if err := put(dir+"/freezer.state", "FROZEN"); err != nil {
					t.Fatal(err)
				}
			}
			if err := g.Kill(deadline(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestFreezeStopsAndThawGoesOn(t *testing.T) {
	for name, l := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			g := mustMake(t, l, parent(t, l)+"/c", nil)
			file := filepath.Join(t.TempDir(), "ticks")
			start(t, g, "while :; do echo x >>"+file+"; sleep 0.01; done")
			size := func() int64 {
				st, err := os.Stat(file)
				if err != nil {
					return 0
				}
				return st.Size()
			}
			grows := func() bool {
				before := size()
				for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					if size() > before {
						return true
					}
				}
				return false
			}
			if !grows() {
				t.Fatal("the script does not run")
			}
			if err := g.Freeze(deadline(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			before := size()
			time.Sleep(100 * time.Millisecond)
			if size() != before {
				t.Error("ran while frozen")
			}
			if err := g.Thaw(); err != nil {
				t.Fatal(err)
			}
			if !grows() {
				t.Error("does not run after Thaw")
			}
		})
	}
}

// A container with the right to make groups hides processes and makes deep and many ones.
func TestRemoveNested(t *testing.T) {
	for name, l := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			g := mustMake(t, l, parent(t, l)+"/c", nil)
			for _, d := range g.dirs {
				for _, name := range []string{"a/b/c", "a/d", "line\nbreak", "e"} {
					if strings.Contains(name, "\n") && !d.v2 {
						continue // the kernel refuses it for v1, and for v2 since 3.16
					}
					if err := os.MkdirAll(d.path+"/"+name, 0o755); err != nil && !strings.Contains(name, "\n") {
						t.Fatal(err)
					}
				}
			}
			deep, err := open(g.dirs[0].path, unix.O_DIRECTORY)
			if err != nil {
				t.Fatal(err)
			}
			for range 40 { // a path longer than PATH_MAX
				name := strings.Repeat("n", 200)
				if err := unix.Mkdirat(deep, name, 0o755); err != nil {
					t.Fatal(err)
				}
				next, err := openat(deep, name, unix.O_DIRECTORY)
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(deep)
				deep = next
			}
			unix.Close(deep)
			inner, err := Open(l, g.Path()+"/e")
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range inner.dirs {
				if err := d.prepare(); err != nil {
					t.Fatal(err)
				}
			}
			start(t, inner, "sleep 60 & sleep 60")
			if pids, err := g.Pids(); err != nil || len(pids) == 0 {
				t.Errorf("Pids does not see nested groups: %v, %v", pids, err)
			}
			if err := g.Destroy(deadline(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			if g.Exists() {
				t.Error("still there")
			}
		})
	}
}

// What nothing can kill is named, with its state, when the time is over; and it is killed as soon as it can be.
func TestKillUninterruptible(t *testing.T) {
	l := Detect()
	g := mustMake(t, l, parent(t, l)+"/c", nil)
	dir := frozenDisk(t)
	cmd := start(t, g, "exec 3>"+dir.path+"/file; echo x >&3; sync -f "+dir.path+"/file; echo y >&3")
	for i := 0; ; i++ {
		if s := describe(cmd.Process.Pid); strings.Contains(s, "state D") {
			break
		}
		if i == 200 {
			t.Fatal("no process got stuck on the frozen file system: ", describe(cmd.Process.Pid))
		}
		time.Sleep(10 * time.Millisecond)
	}
	began := time.Now()
	err := g.Kill(deadline(t, 200*time.Millisecond))
	if !errors.Is(err, errdef.ErrDeadline) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (sh) in state D", cmd.Process.Pid)) {
		t.Errorf("Kill of a process in state D: %v", err)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("Kill took %v, its deadline was 200 ms", d)
	}
	dir.thaw()
	if err := g.Kill(deadline(t, 5*time.Second)); err != nil {
		t.Errorf("Kill after the thaw: %v", err)
	}
}

type disk struct {
	path string
	fd   int
}

// The ioctls of linux/fs.h, _IOWR('X', 119 and 120, int).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// frozenDisk mounts a small file system and freezes it: whoever writes to it waits in state D.
func frozenDisk(t *testing.T) *disk {
	t.Helper()
	image, d := filepath.Join(t.TempDir(), "image"), &disk{path: t.TempDir()}
	if err := exec.Command("mkfs.ext4", "-q", image, "8M").Run(); err != nil {
		t.Skip("mkfs.ext4: ", err)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, d.path).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a loop device here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", d.path).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	var err error
	if d.fd, err = open(d.path, unix.O_DIRECTORY); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(d.fd, fiFreeze, 0); err != nil {
		unix.Close(d.fd)
		t.Skip("freeze: ", err)
	}
	t.Cleanup(d.thaw)
	return d
}

func (d *disk) thaw() {
	if d.fd >= 0 {
		unix.IoctlSetInt(d.fd, fiThaw, 0)
		unix.Close(d.fd)
		d.fd = -1
	}
}

// The first containers of an engine start at once: none may find the common parent half made, or pruned away.
func TestMakeTogether(t *testing.T) {
	for name, l := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			top := parent(t, l)
			prune, err := Open(l, top+"/p")
			if err != nil {
				t.Fatal(err)
			}
			errs := make(chan error)
			const many = 8
			for i := range many {
				go func() {
					for range 10 {
						g, _, err := Make(l, fmt.Sprintf("%s/p/%d", top, i), nil)
						if err != nil {
							errs <- err
							return
						}
						if dir := g.dir("cpuset"); dir != "" {
							if v, err := get(dir + "/cpuset.cpus"); err != nil || v == "" {
								errs <- fmt.Errorf("cpus of a new group: %q, %w", v, err)
								return
							}
						}
						if err := g.Destroy(t.Context()); err != nil {
							errs <- err
							return
						}
						prune.Prune()
					}
					errs <- nil
				}()
			}
			for range many {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			prune.Prune()
			if prune.Exists() {
				t.Error("the parent is left")
			}
		})
	}
}
