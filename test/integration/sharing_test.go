package integration

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hull/test/rig"
)

// registryOf offers the images of h as a registry and returns its address.
func registryOf(t *testing.T, h *rig.Hull, args ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	line := []string{"/usr/bin/env", "-i"}
	line = append(append(line, h.Env...), h.Program, "registry", "serve", "--addr", addr)
	daemon(t, func() error {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}, append(line, args...)...)
	return addr
}

// TestSharing: skopeo, Podman and Docker pull from `hull registry serve` what is in the store, byte for byte, and run it;
// what they push to it, in whatever types and compressions, is in the store with the same digest, and Hull runs it by a name
// without a host.
func TestSharing(t *testing.T) {
	skopeo := rig.Tool(t, "skopeo")
	h := rig.Engine(t)
	t.Run("clients", func(t *testing.T) { share(t, h, skopeo) })
	if out := h.Must(t, "system", "check"); !strings.Contains(out, "The store is whole.") {
		t.Errorf("the store: %s", out)
	}
	h.Mark(t) // the images stay
}

// share serves the images of h until t ends.
func share(t *testing.T, h *rig.Hull, skopeo string) {
	archive := rig.Layered(t).OCI(t)
	shelf := registryOf(t, h, "--writable")
	source := shelf + "/source:1"
	do(t, nil, skopeo, "--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", "oci-archive:"+archive, "docker://"+source)
	digest := do(t, nil, skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+source)
	isOffered(t, h, "source:1", digest)
	t.Run("skopeo", func(t *testing.T) {
		dir := filepath.Join(h.Dir, "copy")
		do(t, nil, skopeo, "--insecure-policy", "copy", "-q", "--preserve-digests", "--src-tls-verify=false", "docker://"+source, "dir:"+dir)
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
		for tag, flags := range map[string][]string{"v2s2": {"--format", "v2s2"}, "zstd": {"--format", "oci", "--dest-compress-format", "zstd"}} {
			to := shelf + "/skopeo:" + tag
			do(t, nil, append([]string{skopeo, "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"}, append(flags, "oci-archive:"+archive, "docker://"+to)...)...)
			isOffered(t, h, "skopeo:"+tag, do(t, nil, skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+to))
		}
		do(t, nil, skopeo, "delete", "--tls-verify=false", "docker://"+shelf+"/skopeo:v2s2")
		if out, err := try(nil, skopeo, "inspect", "--tls-verify=false", "docker://"+shelf+"/skopeo:v2s2"); err == nil {
			t.Errorf("it is still there: %s", out)
		}
	})
	t.Run("podman", func(t *testing.T) {
		podman := ownPodman(t, h)
		podman("pull", "-q", "--tls-verify=false", source)
		if got := podman("image", "inspect", "--format", "{{.Digest}}", source); got != digest {
			t.Errorf("want %s, got %s", digest, got)
		}
		if got := podman("run", "--rm", "--network", "none", source); !strings.Contains(got, "hello from app") {
			t.Errorf("podman runs it: %q", got)
		}
		to := shelf + "/team/podman:1"
		podman("tag", source, to)
		podman("push", "-q", "--tls-verify=false", to)
		isOffered(t, h, "team/podman:1", do(t, nil, skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+to))
	})
	t.Run("docker", func(t *testing.T) {
		docker := ownDocker(t, h)
		if got := docker("pull", source); !strings.Contains(got, "Digest: "+digest) {
			t.Errorf("want the digest %s, got %s", digest, got)
		}
		if got := docker("run", "--rm", "--network", "none", source); !strings.Contains(got, "hello from app") {
			t.Errorf("docker runs it: %q", got)
		}
		to := shelf + "/team/docker:1"
		docker("tag", source, to)
		docker("push", to)
		isOffered(t, h, "team/docker:1", do(t, nil, skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+to))
	})
}

// isOffered: the image name of the store has the digest, and runs.
func isOffered(t *testing.T, h *rig.Hull, name, digest string) {
	t.Helper()
	if got := h.Must(t, "image", "inspect", "--format", "{{.RepoDigests}}", name); !strings.Contains(got, "@"+digest) {
		t.Errorf("%s: want %s, got %s", name, digest, got)
	}
	if got := h.Must(t, "run", "--rm", "--network", "none", name); !strings.Contains(got, "hello from app") {
		t.Errorf("%s runs: %q", name, got)
	}
}

// TestConformance runs the conformance tests of the OCI distribution specification against a registry that can be written,
// for all that a client can do, and against one that cannot. HULL_CONFORMANCE is the path of their program.
func TestConformance(t *testing.T) {
	suite := os.Getenv("HULL_CONFORMANCE")
	if suite == "" {
		t.Skip("HULL_CONFORMANCE does not name the program of the specification's conformance tests")
	}
	h := rig.Engine(t)
	conforms := func(t *testing.T, addr string, env ...string) {
		t.Helper()
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), suite)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "OCI_REGISTRY="+addr, "OCI_TLS=disabled", "OCI_VERSION=1.1", "OCI_RESULTS_DIR="+dir+"/results")
		cmd.Env = append(cmd.Env, env...)
		// Its exit status says less than what it prints: it fails to write one of its reports of a registry that is read-only.
		out, err := cmd.CombinedOutput()
		if !bytes.Contains(out, []byte("\nOCI Conformance Result: Pass\n")) || bytes.Contains(out, []byte(": FAIL\n")) {
			t.Errorf("%v\n%s", err, out)
		}
	}
	t.Run("writable", func(t *testing.T) {
		conforms(t, registryOf(t, h, "--writable"), "OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_MANIFESTS_TAG_PARAM=true",
			"OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_BLOBS_DIGEST_HEADER=true")
	})
	t.Run("read-only", func(t *testing.T) {
		h.Load(t, rig.Layered(t).OCI(t))
		h.Must(t, "tag", "layered:3", "shared/app:1")
		digest := strings.TrimSpace(h.Must(t, "image", "inspect", "--format", "{{index .RepoDigests 0}}", "shared/app:1"))
		_, digest, _ = strings.Cut(digest, "@")
		conforms(t, registryOf(t, h), "OCI_REPO1=shared/app", "OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false",
			"OCI_API_TAGS_DELETE=false", "OCI_RO_DATA_TAGS=1", "OCI_RO_DATA_MANIFESTS="+digest, "OCI_RO_DATA_REFERRERS="+digest)
	})
	h.Mark(t)
}
