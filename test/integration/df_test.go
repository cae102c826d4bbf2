package integration

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hull/client"
	"hull/test/rig"
)

// TestEveryByte compares what system df says with du(1), in a store with something of every kind.
func TestEveryByte(t *testing.T) {
	rig.Root(t)
	if _, err := exec.LookPath("du"); err != nil {
		t.Skip("no du(1)")
	}
	if rig.Guest() {
		t.Skip("the guest's du knows no bytes")
	}
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Load(t, rig.Layered(t).OCI(t))
	h.Must(t, "run", "--name", "writer", "--network", "none", "-v", "data:/data", "busybox", "sh", "-c",
		"seq 1 20000; dd if=/dev/zero of=/big bs=64k count=20; ln /big /again; cp /big /data/")
	h.Must(t, "run", "-d", "--name", "runs", "--network", "none", "busybox", "sleep", "1000")
	// What the last command has left to a monitor may still change a file.
	for deadline := time.Now().Add(time.Minute); ; {
		before := du(t, h.Root)
		var u struct{ Disk client.Disk }
		if err := json.Unmarshal([]byte(h.Must(t, "system", "df", "-v", "--format", "json")), &u); err != nil {
			t.Fatal(err)
		}
		if before != du(t, h.Root) && time.Now().Before(deadline) {
			continue
		}
		parts := map[string]int64{}
		var sum int64
		for _, p := range u.Disk.Parts {
			parts[p.Kind] = p.Bytes
			sum += p.Bytes
		}
		if u.Disk.Total != before || sum != before {
			t.Errorf("du says %d, df %d, its parts together %d: %v", before, u.Disk.Total, sum, parts)
		}
		for kind, least := range map[string]int64{
			"Layers": 1 << 20, "Blobs": 1 << 19, "Container files": 20 * 64 << 10, "Container logs": 100_000, "Volumes": 20 * 64 << 10, "Image records": 1, "Events": 1,
		} {
			if parts[kind] < least || parts[kind] > 64<<20 {
				t.Errorf("%s: %d bytes", kind, parts[kind])
			}
		}
		if want := du(t, filepath.Join(h.Root, "volumes")); parts["Volumes"] != want {
			t.Errorf("volumes: want %d, got %d", want, parts["Volumes"])
		}
		if parts["Other"] > 4096 {
			names, _ := filepath.Glob(h.Root + "/*")
			t.Errorf("%d bytes have no name: which of %q is not known?", parts["Other"], names)
		}
		break
	}
	h.Must(t, "rm", "-f", "runs", "writer")
	h.Must(t, "volume", "rm", "data")
}

// du is what du(1) says of a tree.
func du(t *testing.T, path string) int64 {
	t.Helper()
	out, err := exec.Command("du", "-sx", "--block-size=1", path).CombinedOutput()
	n, parseErr := strconv.ParseInt(strings.SplitN(string(out), "\t", 2)[0], 10, 64)
	if parseErr != nil {
		t.Fatalf("du: %v: %s", err, out)
	}
	return n
}
