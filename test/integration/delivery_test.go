package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hull/test/rig"
)

// TestDelivery: what Hull pushes to Debian's registry, skopeo, Podman and Docker pull byte for byte, and run; what skopeo,
// Podman and Docker push there, in whatever types and compressions, Hull pulls with the same digest, and runs.
func TestDelivery(t *testing.T) {
	shelf := debianRegistry(t)
	skopeo := rig.Tool(t, "skopeo")
	h := rig.Engine(t)
	archive := rig.Layered(t).OCI(t)
	// There is no registry client that leaves an archive's bytes alone but skopeo: its copy is what the others are measured by.
	source := shelf + "/source:1"
	do(t, nil, skopeo, "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci-archive:"+archive, "docker://"+source)
	h.Must(t, "pull", "-q", source)
	name := shelf + "/team/app:1"
	h.Must(t, "tag", source, name)
	h.Must(t, "push", "-q", name)
	want := do(t, nil, skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Layers}}", "docker://"+source)
	if got := do(t, nil, skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Layers}}", "docker://"+name); got != want {
		t.Errorf("pushed: want %s, got %s", want, got)
	}
	digest, _, _ := strings.Cut(want, " ")
	if got := h.Must(t, "image", "inspect", "--format", "{{index .RepoDigests 0}}", name); !strings.HasSuffix(got, "@"+digest) {
		t.Errorf("here it is %s, at the registry %s", got, digest)
	}
	// What was never at a registry is compressed on its way there.
	made := map[string]string{}
	for _, kind := range []string{"gzip", "zstd"} {
		image := rig.Layered(t)
		image.Tag, image.Labels["kind"] = shelf+"/made:"+kind, kind
		image.Layers = append(image.Layers, []rig.File{{Name: "kind", Mode: 0o644, Data: kind}}) // no layer of an image that was pushed
		made[kind] = image.Tag
		h.Must(t, "load", "-q", "-i", image.OCI(t))
		h.Must(t, "push", "-q", "--compress", kind, image.Tag)
		raw := do(t, nil, skopeo, "inspect", "--tls-verify=false", "--raw", "docker://"+image.Tag)
		if n := strings.Count(raw, "image.layer.v1.tar+"+kind+`"`); n != len(image.Layers) || strings.Contains(raw, `layer.v1.tar"`) {
			t.Errorf("%s has %d layers, in %s are %d of them: %s", image.Tag, len(image.Layers), kind, n, raw)
		}
	}
	t.Run("skopeo", func(t *testing.T) {
		// With every digest checked on the way, and the files compared with those of the store.
		dir := filepath.Join(h.Dir, "copy")
		do(t, nil, skopeo, "--insecure-policy", "copy", "-q", "--preserve-digests", "--src-tls-verify=false", "docker://"+name, "dir:"+dir)
		blobs, err := os.ReadDir(dir)
		if err != nil || len(blobs) < 5 {
			t.Fatalf("%v, %v", blobs, err)
		}
		for _, b := range blobs {
			if len(b.Name()) != 64 {
				continue
			}
			theirs, err := os.ReadFile(filepath.Join(dir, b.Name()))
			ours, err2 := os.ReadFile(filepath.Join(h.Root, "blobs/sha256", b.Name()))
			if err = errors.Join(err, err2); err != nil || !bytes.Equal(theirs, ours) {
				t.Errorf("%s: %d and %d bytes, %v", b.Name(), len(theirs), len(ours), err)
			}
		}
		for tag, flags := range map[string][]string{
			"v2s2": {"--format", "v2s2"}, "zstd": {"--format", "oci", "--dest-compress-format", "zstd"}, "gzip": {"--format", "oci", "--dest-compress-format", "gzip"},
			"chunked": {"--format", "oci", "--dest-compress-format", "zstd:chunked"},
		} {
			to := shelf + "/skopeo:" + tag
			if _, err := try(nil, append([]string{skopeo, "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--dest-force-compress-format"}, append(flags, "oci-archive:"+archive, "docker://"+to)...)...); err != nil {
				// Debian 12's skopeo does not know the flag that forces.
				do(t, nil, append([]string{skopeo, "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"}, append(flags, "oci-archive:"+archive, "docker://"+to)...)...)
			}
			isHere(t, h, skopeo, to)
		}
		for kind, name := range made {
			do(t, nil, skopeo, "--insecure-policy", "copy", "-q", "--preserve-digests", "--src-tls-verify=false", "docker://"+name, "dir:"+filepath.Join(h.Dir, kind))
			isHere(t, h, skopeo, name)
		}
	})
	t.Run("podman", func(t *testing.T) {
		podman := ownPodman(t, h)
		podman("pull", "-q", "--tls-verify=false", name)
		if got := podman("image", "inspect", "--format", "{{.Digest}}", name); got != digest {
			t.Errorf("want %s, got %s", digest, got)
		}
		if got := podman("run", "--rm", "--network", "none", name); !strings.Contains(got, "hello from app") {
			t.Errorf("podman runs it: %q", got)
		}
		for kind, name := range made {
			podman("pull", "-q", "--tls-verify=false", name)
			if got := podman("run", "--rm", "--network", "none", "--entrypoint", "cat", name, "/kind"); got != kind {
				t.Errorf("podman runs %s: %q", name, got)
			}
		}
		to := shelf + "/podman:1"
		podman("tag", name, to)
		podman("push", "-q", "--tls-verify=false", to)
		isHere(t, h, skopeo, to)
	})
	t.Run("docker", func(t *testing.T) {
		docker := ownDocker(t, h)
		if got := docker("pull", name); !strings.Contains(got, "Digest: "+digest) {
			t.Errorf("want the digest %s, got %s", digest, got)
		}
		if got := docker("run", "--rm", "--network", "none", name); !strings.Contains(got, "hello from app") {
			t.Errorf("docker runs it: %q", got)
		}
		docker("pull", made["gzip"]) // zstd came with version 23
		if got := docker("run", "--rm", "--network", "none", "--entrypoint", "cat", made["gzip"], "/kind"); got != "gzip" {
			t.Errorf("docker runs %s: %q", made["gzip"], got)
		}
		to := shelf + "/docker:1"
		docker("tag", name, to)
		docker("push", to)
		isHere(t, h, skopeo, to)
	})
	h.Mark(t) // the images stay
}

// isHere pulls name, compares its digest with the registry's, and runs it.
func isHere(t *testing.T, h *rig.Hull, skopeo, name string) {
	t.Helper()
	digest := do(t, nil, skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+name)
	if got := h.Must(t, "pull", name); !strings.Contains(got, "Digest: "+digest) {
		t.Errorf("%s: want %s, got %s", name, digest, got)
	}
	if got := h.Must(t, "run", "--rm", "--network", "none", name); !strings.Contains(got, "hello from app") {
		t.Errorf("%s runs: %q", name, got)
	}
}

// debianRegistry starts Debian's registry and returns its address.
func debianRegistry(t *testing.T) string {
	t.Helper()
	program := rig.Tool(t, "docker-registry")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: %q}\n", dir, addr)
	if err := os.WriteFile(dir+"/config.yml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon(t, func() error {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}, program, "serve", dir+"/config.yml")
	return addr
}

// daemon runs a daemon until the test ends, and returns when it answers.
func daemon(t *testing.T, answers func() error, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(rig.Patience(20 * time.Second)):
			cmd.Process.Kill()
			<-ended
		}
	})
	for end := time.Now().Add(rig.Patience(30 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		err := answers()
		if err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", args[0], &out)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", args[0], err)
		}
	}
}

// do runs a program to its end and returns what it says.
func do(t *testing.T, env []string, args ...string) string {
	t.Helper()
	out, err := try(env, args...)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return out
}

func try(env []string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// ownPodman is Podman with a store of its own. It gets runc, for Debian's crun refuses cgroup v1 with a v2 mount beside it.
func ownPodman(t *testing.T, h *rig.Hull) func(args ...string) string {
	podman := rig.Tool(t, "podman")
	dir := filepath.Join(h.Dir, "podman")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=4096:4096\"]\n[engine]\nevents_logger = \"file\"\n[network]\nnetwork_backend = \"netavark\"\n"
	if err := os.WriteFile(dir+"/containers.conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir+"/root/overlay", unix.MNT_DETACH) }) // it leaves its store mounted on itself
	return func(args ...string) string {
		t.Helper()
		return do(t, []string{"CONTAINERS_CONF=" + dir + "/containers.conf"}, append([]string{
			podman, "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", "runc",
		}, args...)...)
	}
}

// ownDocker is Debian's Docker with a daemon of its own, which makes no network.
func ownDocker(t *testing.T, h *rig.Hull) func(args ...string) string {
	dockerd, docker := rig.Tool(t, "dockerd"), rig.Tool(t, "docker")
	dir := filepath.Join(h.Dir, "docker")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sock := "unix://" + dir + "/sock"
	daemon(t, func() error {
		_, err := try(nil, docker, "-H", sock, "version")
		return err
	}, dockerd, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", sock,
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	return func(args ...string) string {
		t.Helper()
		return do(t, nil, append([]string{docker, "-H", sock}, args...)...)
	}
}
