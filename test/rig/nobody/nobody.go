// Package nobody runs tests of a package again as a user without any right. It knows nothing of Hull, so that the tests of
// every package can use it.
package nobody

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// id is nobody's, and nogroup's, on Debian.
const id = 65534

// Runs runs the tests of this binary that match pattern, as -test.run takes it, as nobody, and fails t unless they pass and
// the one named must has run. Without root t is skipped: then the tests ran unprivileged in the first place.
func Runs(t *testing.T, pattern, must string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	exe, err := os.Open("/proc/self/exe") // its directory may be closed to nobody
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	tmp := t.TempDir()
	for p := tmp; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(tmp, id, id); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/fd/3", "-test.run="+pattern, "-test.v", "-test.count=1")
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Env = []string{"TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+must+" ")) {
		t.Errorf("%v\n%s", err, out)
	}
}
