package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/test/rig/disk"
	"hull/test/rig/nobody"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, write := range []func(string, []byte) error{Write, WriteDurable, WriteVolatile, WriteVolatile} {
		want := []byte("content")
		if err := write(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path, 7)
		if err != nil || !bytes.Equal(want, got) {
			t.Fatalf("want %q, got %q, %v", want, got, err)
		}
	}
	if _, err := Read(path, 6); !errors.Is(err, errdef.ErrCorrupt) {
		t.Errorf("want a file longer than its limit refused, got %v", err)
	}
	if err := Write(filepath.Join(path, "x"), nil); err == nil {
		t.Error("want an error below a file")
	}
	wantNames(t, filepath.Dir(path), "f")
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(dir+"/file", []byte("secret"), 0o600)
	os.Symlink("file", dir+"/link")
	unix.Mkfifo(dir+"/fifo", 0o600)
	for _, name := range []string{"link", "fifo", ".", "none"} {
		if data, err := Read(filepath.Join(dir, name), 100); err == nil {
			t.Errorf("want %s refused, got %q", name, data)
		}
	}
}

// Readers of a file that is written all the time see one of the contents whole.
func TestWriteNeverHalf(t *testing.T) {
	for name, write := range map[string]func(string, []byte) error{"Write": Write, "WriteVolatile": WriteVolatile} {
		t.Run(name, func(t *testing.T) { testNeverHalf(t, write) })
	}
}

func testNeverHalf(t *testing.T, write func(string, []byte) error) {
	path := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 5)}
	if err := write(path, contents[0]); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if err := write(path, contents[i%2]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 500 {
		got, err := Read(path, 1<<20)
		if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Errorf("got %d bytes, %v", len(got), err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
}

func TestOpen(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "root")
	for range 2 {
		if err := Open(root); err != nil {
			t.Fatal(err)
		}
	}
	if st, _ := os.Stat(root); st.Mode().Perm() != 0o700 {
		t.Errorf("want 0700, got %v", st.Mode())
	}
	wantNames(t, root, versionFile)

	os.WriteFile(root+"/version", []byte("2\n"), 0o600)
	if err := Open(root); !errors.Is(err, errdef.ErrUnavailable) || !strings.Contains(err.Error(), "newer hull") {
		t.Errorf("want a newer schema refused in words, got %v", err)
	}
	for _, bad := range []string{"", "x\n", "-1\n", "0\n", "1 2\n"} {
		os.WriteFile(root+"/version", []byte(bad), 0o600)
		if err := Open(root); !errors.Is(err, errdef.ErrCorrupt) {
			t.Errorf("version %q: want damaged, got %v", bad, err)
		}
	}
	foreign := t.TempDir()
	os.WriteFile(foreign+"/thesis.tex", nil, 0o600)
	if err := Open(foreign); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("want somebody's directory refused, got %v", err)
	}
	wantNames(t, foreign, "thesis.tex")
}

func TestOpenByManyAtOnce(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := Open(root); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	l, err := Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := TryLock(dir); ok || err != nil {
		t.Errorf("want held by another, got %v, %v", ok, err)
	}
	cause := errors.New("the person left")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	if _, err := LockShared(ctx, dir); !errors.Is(err, errdef.ErrDeadline) || !errors.Is(err, cause) {
		t.Errorf("want the end of the context with its cause, got %v", err)
	}
	time.AfterFunc(10*time.Millisecond, l.Unlock)
	s1, err := LockShared(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s2, err := LockShared(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s1.Unlock()
	s2.Unlock()
	if _, err := Lock(t.Context(), dir+"/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("want not exist, got %v", err)
	}
}

// Who waits in vain is told for whom.
func TestLockNamesItsHolder(t *testing.T) {
	flock, err := exec.LookPath("flock")
	if err != nil {
		t.Skip("no flock(1)")
	}
	dir := t.TempDir()
	other := exec.Command(flock, dir, "cat")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		other.Wait()
	}()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		l, ok, err := TryLock(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		l.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("flock(1) does not lock")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = Lock(ctx, dir)
	if err == nil || !strings.Contains(err.Error(), dir+" is in use by process "+strconv.Itoa(other.Process.Pid)) || !strings.Contains(err.Error(), "flock") {
		t.Errorf("want the process %d, got %v", other.Process.Pid, err)
	}
}

// A lock of a directory that its holder replaces is a lock of the new one.
func TestLockOfReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	os.Mkdir(dir, 0o700)
	os.Mkdir(dir+"-new", 0o700)
	l, err := Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		l, err := Lock(context.Background(), dir)
		if err == nil {
			_, ok, _ := TryLock(dir)
			if ok {
				err = errors.New("two hold it")
			}
			l.Unlock()
		}
		got <- err
	}()
	time.Sleep(5 * time.Millisecond)
	if err := unix.Renameat2(unix.AT_FDCWD, dir+"-new", unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		t.Error(err)
	}
	l.Unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestClaim(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"names", "c/1", "c/2"} {
		os.MkdirAll(filepath.Join(dir, d), 0o700)
	}
	names := dir + "/names"
	for range 2 {
		if err := Claim(names, "web", "../c/1"); err != nil {
			t.Fatal(err)
		}
	}
	var taken *Taken
	if err := Claim(names, "web", "../c/2"); !errors.As(err, &taken) || taken.Target != "../c/1" {
		t.Fatalf("want it taken by 1, got %v", err)
	}
	if err := Release(names, "web", "../c/2"); err != nil {
		t.Fatal(err)
	}
	if h, alive, err := Holder(names, "web"); h != "../c/1" || !alive || err != nil {
		t.Fatalf("want a foreign release to do nothing, got %q %v %v", h, alive, err)
	}
	os.Remove(dir + "/c/1")
	if err := Claim(names, "web", "../c/2"); err != nil {
		t.Fatalf("want a stale claim stolen, got %v", err)
	}
	if err := Release(names, "web", "../c/2"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, names)
	if err := Release(dir+"/none", "web", "x"); err != nil {
		t.Errorf("want nothing to release, got %v", err)
	}
}

func TestSweepClaims(t *testing.T) {
	dir := t.TempDir()
	names := dir + "/names"
	for _, d := range []string{"names", "c/1", "c/2", "c/3"} {
		os.MkdirAll(filepath.Join(dir, d), 0o700)
	}
	for name, target := range map[string]string{"a": "1", "b": "2", "c": "3", "d": "3"} {
		if err := Claim(names, name, "../c/"+target); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(dir + "/c/2")
	if err := SweepClaims(names); err != nil {
		t.Error(err)
	}
	wantNames(t, names, "a", "c", "d")
	if err := ReleaseAll(names, "../c/3"); err != nil {
		t.Error(err)
	}
	wantNames(t, names, "a")
	if err := errors.Join(SweepClaims(dir+"/none"), ReleaseAll(dir+"/none", "x")); err != nil {
		t.Errorf("want a missing directory to hold no claims, got %v", err)
	}
}

// Who claims again what was theirs holds it afterwards, however many sweepers saw it stale the moment before.
func TestClaimWhileSwept(t *testing.T) {
	dir := t.TempDir()
	names, target := dir+"/names", dir+"/c"
	os.Mkdir(names, 0o700)
	for range 200 {
		os.Remove(target)
		os.Symlink(target, names+"/web") // what a killed owner left; or still there from the last round
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := SweepClaims(names); err != nil {
					t.Error(err)
				}
			})
		}
		os.Mkdir(target, 0o700)
		if err := Claim(names, "web", target); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if h, alive, err := Holder(names, "web"); h != target || !alive || err != nil {
			t.Fatalf("want the claim held, got %q %v %v", h, alive, err)
		}
	}
}

// Of many claimers of a stale claim one wins, again and again.
func TestClaimRace(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(dir+"/names", 0o700)
	os.Symlink("../gone", dir+"/names/web")
	for round := range 20 {
		var wg sync.WaitGroup
		var winners atomic.Int32
		for i := range 16 {
			target := fmt.Sprintf("../%d-%d", round, i)
			os.Mkdir(filepath.Join(dir, "names", target), 0o700)
			wg.Go(func() {
				err := Claim(dir+"/names", "web", target)
				var taken *Taken
				if err == nil {
					winners.Add(1)
				} else if !errors.As(err, &taken) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := winners.Load(); n != 1 {
			t.Fatalf("want one winner, got %d", n)
		}
		h, _, _ := Holder(dir+"/names", "web")
		os.Remove(filepath.Join(dir, "names", h)) // the next round finds it stale
	}
	wantNames(t, dir+"/names", "web")
}

func TestRemoveSmall(t *testing.T) {
	dir := t.TempDir()
	canary := dir + "/canary"
	os.MkdirAll(canary, 0o700)
	os.WriteFile(canary+"/f", nil, 0o600)
	tree := dir + "/tree"
	os.MkdirAll(tree+"/a/b/c", 0o700)
	os.MkdirAll(tree+"/empty", 0o700)
	os.MkdirAll(tree+"/closed/in", 0o700)
	os.WriteFile(tree+"/closed/in/f", nil, 0)
	os.Chmod(tree+"/closed/in", 0o500)
	os.Chmod(tree+"/closed", 0)
	os.WriteFile(tree+"/a/f", nil, 0)
	os.Symlink(canary, tree+"/a/link")
	os.Symlink("../canary", tree+"/link")
	unix.Mkfifo(tree+"/fifo", 0o600)
	for range 2 {
		if err := Remove(tree); err != nil {
			t.Fatal(err)
		}
	}
	wantNames(t, dir, "canary")
	wantNames(t, canary, "f")
	os.Symlink(canary, dir+"/link")
	if err := Remove(dir + "/link"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, canary, "f")
	for _, bad := range []string{"", "/", ".", "..", "a/.."} {
		if err := Remove(bad); err == nil {
			t.Errorf("want %q refused", bad)
		}
	}
	if err := Remove(dir + "/no/such/path"); err != nil {
		t.Errorf("want nothing to remove, got %v", err)
	}
}

func TestRemoveWide(t *testing.T) {
	tree := t.TempDir() + "/tree"
	for i := range 40 {
		d := fmt.Sprintf("%s/%d", tree, i)
		os.MkdirAll(d, 0o700)
		for j := range 60 {
			os.WriteFile(fmt.Sprintf("%s/a-name-of-some-length-%d", d, j), nil, 0o600)
			os.Mkdir(fmt.Sprintf("%s/d%d", d, j), 0o700)
		}
	}
	if err := Remove(tree); err != nil {
		t.Fatal(err)
	}
	wantNames(t, filepath.Dir(tree))
}

// makeDeep makes a directory of n levels, which no path names (PATH_MAX), with a file in each hundredth.
func makeDeep(t *testing.T, path string, n int) {
	t.Helper()
	os.Mkdir(path, 0o700)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for i := 0; i < n && err == nil; i++ {
		err = unix.Mkdirat(fd, "a", 0o700)
		if err == nil && i%100 == 0 {
			var f int
			f, err = unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
			unix.Close(f)
		}
		var next int
		if err == nil {
			next, err = unix.Openat(fd, "a", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
}

// A92: os.RemoveAll runs out of file descriptors here.
func TestRemoveDeep(t *testing.T) {
	dir := t.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "hull-state"); err == nil { // ext4 takes 20 times as long
		dir = shm
		t.Cleanup(func() { Remove(shm) })
	}
	makeDeep(t, dir+"/deep", 25_000)
	var old unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &old)
	low := old
	low.Cur = 128
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	if err := Remove(dir + "/deep"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir)
}

func TestRemoveKeepsMounts(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	tree := dir + "/tree"
	for _, d := range []string{"/a", "/z", "/mnt"} {
		os.MkdirAll(tree+d, 0o700)
		os.WriteFile(tree+d+"/f", nil, 0o600)
	}
	if err := unix.Mount("none", tree+"/mnt", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(tree+"/mnt", unix.MNT_DETACH) })
	os.WriteFile(tree+"/mnt/canary", nil, 0o600)
	err := Remove(tree)
	if err == nil || !strings.Contains(err.Error(), "tree/mnt: is a mount point") {
		t.Errorf("want the mount point named, got %v", err)
	}
	wantNames(t, tree, "mnt")
	wantNames(t, tree+"/mnt", "canary")
	unix.Unmount(tree+"/mnt", 0)
	if err := Remove(tree); err != nil {
		t.Error(err)
	}
}

func TestRemoveImmutable(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	tree := dir + "/tree"
	os.MkdirAll(tree+"/d/e", 0o700)
	os.WriteFile(tree+"/d/f", nil, 0o600)
	os.WriteFile(tree+"/d/e/f", nil, 0o600)
	for _, p := range []string{"/d/e/f", "/d/f", "/d/e", "/d", ""} {
		setFlag(t, tree+p, unix.STATX_ATTR_IMMUTABLE)
		t.Cleanup(func() { clearPath(tree + p) })
	}
	if err := os.Remove(tree + "/d/f"); err == nil {
		t.Fatal("the flag has no effect: the test proves nothing")
	}
	if err := Remove(tree); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir)
}

func setFlag(t *testing.T, path string, flag int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag); err != nil {
		t.Skipf("this file system has no immutable files: %v", err)
	}
}

func clearPath(path string) {
	if f, err := os.Open(path); err == nil {
		clearFlagsOf(int(f.Fd()))
		f.Close()
	}
}

func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(dir+"/obj/sub", 0o700)
	if err := Discard(dir+"/obj", dir+"/trash"); err != nil {
		t.Fatal(err)
	}
	if err := Discard(dir+"/obj", dir+"/trash"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir, "trash")
	wantNames(t, dir+"/trash")
	os.MkdirAll(dir+"/trash/left/sub", 0o700)
	if err := EmptyTrash(dir + "/trash"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir+"/trash")
	if err := EmptyTrash(dir + "/none"); err != nil {
		t.Fatal(err)
	}
}

// The tests above that need no root, as a user without any right.
func TestUnprivileged(t *testing.T) {
	nobody.Runs(t, "^Test(RemoveSmall|RemoveDeep|Write|Open|Lock|Claim|SweepClaims|Discard)", "TestRemoveSmall")
}

func BenchmarkRemoveSmall(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		b.StopTimer()
		tree := dir + "/tree"
		os.MkdirAll(tree+"/log", 0o700)
		os.MkdirAll(tree+"/rw/upper", 0o700)
		os.MkdirAll(tree+"/rw/work/work", 0o700)
		os.WriteFile(tree+"/config.json", nil, 0o600)
		os.WriteFile(tree+"/state.json", nil, 0o600)
		b.StartTimer()
		if err := Remove(tree); err != nil {
			b.Fatal(err)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s: want %q, got %q", dir, want, got)
	}
}

// TestFirstWords: who waits for a lock learns which command has it, and none of its secrets.
func TestFirstWords(t *testing.T) {
	for in, want := range map[string]string{
		"hull\x00pull\x00":                                 "hull pull",
		"hull\x00login\x00-p\x00secret\x00":                "hull login",
		"hull\x00run\x00-e\x00KEY=secret\x00nginx\x00":     "hull run",
		"hull\x00exec\x00web\x00mysql\x00-psecret\x00":     "hull exec web",
		"/usr/bin/hulld\x00--password=secret\x00serve\x00": "/usr/bin/hulld",
		"": "",
	} {
		if got := firstWords(in); got != want {
			t.Errorf("%q: want %q, got %q", in, want, got)
		}
	}
}

// A broken file system lists names that it then does not find, and keeps the directory: that is an error, not an
// endless loop. Here the names of an indexed directory of ext4 are changed on the disk, so that their hashes lie.
func TestRemoveBroken(t *testing.T) {
	if !disk.OwnMounts(t) {
		return
	}
	file, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	call := func(line ...string) {
		t.Helper()
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v %s", line, err, out)
		}
	}
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 32<<20)); err != nil {
		t.Fatal(err)
	}
	call("mkfs.ext4", "-q", "-O", "^metadata_csum,^has_journal", file)
	call("mount", "-o", "loop", file, dir)
	tree := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		if err := os.WriteFile(fmt.Sprintf("%s/listed-%040d", tree, i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	call("umount", dir)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(data, []byte("listed-"), []byte("hidden-")), 0o600); err != nil {
		t.Fatal(err)
	}
	call("mount", "-o", "loop", file, dir)
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	done := make(chan error)
	go func() { done <- Remove(dir + "/a") }()
	select {
	case err = <-done:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	if !errors.Is(err, unix.ENOTEMPTY) || !strings.Contains(err.Error(), "b") {
		t.Errorf("want that the directory is not empty, got %v", err)
	}
}
