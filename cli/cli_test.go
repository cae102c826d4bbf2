package cli

import (
	"flag"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s: want\n%s\ngot\n%s", path, want, got)
	}
}

// TestHelp keeps what people read; review the diff after -update.
func TestHelp(t *testing.T) {
	f := newFake(t)
	for _, line := range []string{"", "run", "exec", "ps", "container", "image ls", "inspect", "load"} {
		r := f.hull("", append(strings.Fields(line), "--help")...)
		if r.code != 0 || r.stderr != "" || len(r.requests) > 0 {
			t.Errorf("%s --help: status %d, stderr %q, requests %v", line, r.code, r.stderr, r.requests)
		}
		golden(t, "help/hull "+line+".txt", r.stdout)
	}
	if a, b := f.hull("", "help", "run"), f.hull("", "run", "--help"); a.stdout != b.stdout || a.code != 0 {
		t.Error("help run is not run --help")
	}
}

// TestEveryCommandHasHelp: each has a usage line, and flags of its own are told.
func TestEveryCommandHasHelp(t *testing.T) {
	f := newFake(t)
	var walk func(prefix []string, list []command)
	walk = func(prefix []string, list []command) {
		for _, c := range list {
			words := append(prefix[:len(prefix):len(prefix)], c.name)
			r := f.hull("", append(words, "--help")...)
			if want := "Usage:  hull " + strings.Join(words, " "); r.code != 0 || !strings.HasPrefix(r.stdout, want) {
				t.Errorf("%v --help: status %d, want %q, got %q", words, r.code, want, r.stdout)
			}
			walk(words, c.sub)
		}
	}
	walk(nil, commands[:])
}

// TestRefusedFlags: what Docker knows and this version does not is refused by name, with the reason.
func TestRefusedFlags(t *testing.T) {
	f := newFake(t)
	for line, want := range map[string]string{
		"create --gpus all app:1": "hull: --gpus needs CDI devices, which this version does not have yet\n",
		"compose up":              "hull: compose comes with a later version, in hulld\n",
	} {
		r := f.hull("", strings.Fields(line)...)
		if r.code != 125 || r.stderr != want || r.stdout != "" || len(r.requests) > 0 {
			t.Errorf("%s: want 125 and %q, got %d and %q, requests %v", line, want, r.code, r.stderr, r.requests)
		}
	}
	for _, line := range []string{
		"run --link x app:1", "run --dns x app:1", "run --add-host a app:1", "run --add-host a:b app:1", "run --mac-address 1 app:1",
		"run --network none --network host app:1", "run --network alias=x app:1", "run --ip x app:1",
		"run --device vendor.com/class=x app:1",
	} {
		r := f.hull("", strings.Fields(line)...)
		if r.code != 125 || len(r.requests) > 0 {
			t.Errorf("%s: want 125 and no request, got %d, %v", line, r.code, r.requests)
		}
	}
	for _, line := range []string{"run --restart no app:1 x", "run --init=false app:1 x", "run --disable-content-trust app:1 x"} {
		if r := f.hull("", strings.Fields(line)...); r.code != 3 {
			t.Errorf("%s asks for nothing: want the container's 3, got %d, %s", line, r.code, r.stderr)
		}
	}
}

// TestMissingImage: the words scripts look for, what helps, 125, and nothing left behind.
func TestMissingImage(t *testing.T) {
	f := newFake(t)
	f.on("POST /containers/create", refuse(404, "No such image: nothing:latest"))
	cid := filepath.Join(t.TempDir(), "cid")
	f.on("POST /images/create", refuse(404, "manifest for nothing:latest not found: manifest unknown"))
	r := f.hull("", "run", "--cidfile", cid, "nothing")
	want := "Unable to find image 'nothing:latest' locally\nhull: manifest for nothing:latest not found: manifest unknown\n"
	if r.code != 125 || !strings.HasPrefix(r.stderr, want) {
		t.Errorf("want 125 and %q, got %d and %q", want, r.code, r.stderr)
	}
	if _, err := os.Stat(cid); err == nil {
		t.Error("the file of the id stays although there is no container")
	}
}

func TestCIDFile(t *testing.T) {
	f := newFake(t)
	cid := filepath.Join(t.TempDir(), "cid")
	for i, code := range []int{0, 125} {
		r := f.hull("", "run", "-d", "--cidfile", cid, "app:1")
		if r.code != code {
			t.Errorf("run %d: want status %d, got %d, %s", i, code, r.code, r.stderr)
		}
		if b, err := os.ReadFile(cid); err != nil || string(b) != fakeID {
			t.Errorf("run %d: id file has %q, %v", i, b, err)
		}
	}
}

// TestCIDFileFails: the cause, what helps, and no container that nobody knows the id of.
func TestCIDFileFails(t *testing.T) {
	f := newFake(t)
	f.on("POST /containers/create", func(http.ResponseWriter, *http.Request) { t.Error("a container was made") })
	r := f.hull("", "run", "-d", "--cidfile", t.TempDir()+"/no/cid", "app:1")
	if r.code != 125 || !strings.Contains(r.stderr, "failed to create the container ID file: ") || !strings.Contains(r.stderr, "There is no directory") {
		t.Errorf("no directory: %d, %s", r.code, r.stderr)
	}

	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	limit := func(n uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: was.Max}); err != nil {
			t.Error(err)
		}
	}
	defer signal.Reset(unix.SIGXFSZ)
	defer limit(was.Cur)
	f.on("POST /containers/create", func(w http.ResponseWriter, _ *http.Request) {
		limit(0) // the disk is full
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"Id":"`+fakeID+`"}`)
	})
	removed := false
	f.on("DELETE /containers/"+fakeID, func(w http.ResponseWriter, _ *http.Request) {
		removed = true
		limit(was.Cur) // or nothing could be said either
		w.WriteHeader(http.StatusNoContent)
	})
	cid := t.TempDir() + "/cid"
	r = f.hull("", "run", "-d", "--cidfile", cid, "app:1")
	if r.code != 125 || !strings.Contains(r.stderr, "failed to write the container ID file: ") || !strings.Contains(r.stderr, "removed again") {
		t.Errorf("no space: %d, %s", r.code, r.stderr)
	}
	if _, err := os.Stat(cid); err == nil {
		t.Error("the file stays")
	}
	if !removed {
		t.Error("the container stays")
	}
}

// TestStartStatus: a command that cannot run has the status a shell gives it, from whichever engine.
func TestStartStatus(t *testing.T) {
	for _, tt := range []struct {
		kind, message string
		code          int
		server        string
	}{
		{"", "device /dev/x: no such file or directory", 125, "Hull/1"}, // it is not the command that is missing
		{"no-command", "nosuch: command not found", 127, "Hull/1"},
		{"cannot-run", "/etc: is a directory", 126, "Hull/1"},
		{"", `exec: "x": executable file not found in $PATH`, 127, "Docker"},
		{"", "exec /x: no such file or directory", 127, "Docker"},
		{"", "exec /x: permission denied", 126, "Docker"},
		{"", "something else", 125, "Docker"},
	} {
		f := newFake(t)
		f.on("POST /containers/"+fakeID+"/start", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Hull-Error-Kind", tt.kind)
			w.Header().Set("Server", tt.server)
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"message":"`+strings.ReplaceAll(tt.message, `"`, `\"`)+`"}`)
		})
		for _, args := range [][]string{{"run", "--rm", "app:1"}, {"run", "-d", "app:1"}} {
			r := f.hull("", args...)
			if r.code != tt.code || r.stderr != "hull: "+tt.message+"\n" {
				t.Errorf("%v, %s: want %d, got %d, %q", args, tt.message, tt.code, r.code, r.stderr)
			}
		}
	}
}

// TestRunOrder: nothing of a short container is missed only if attach and wait come before start.
func TestRunOrder(t *testing.T) {
	f := newFake(t)
	r := f.hull("", "run", "--rm", "app:1", "true")
	var order []string
	for _, q := range r.requests {
		order = append(order, strings.TrimPrefix(q.Path, "/containers/"))
	}
	want := strings.Join([]string{"create", fakeID + "/attach", fakeID + "/wait", fakeID + "/start"}, " ")
	if got := strings.Join(order, " "); got != want || r.code != 3 || r.stdout != "out\n" || r.stderr != "err\n" {
		t.Errorf("want %s, got %s; status %d, %q, %q", want, got, r.code, r.stdout, r.stderr)
	}
}

// TestWarnings: those of the engine are said and harm nothing.
func TestWarnings(t *testing.T) {
	f := newFake(t)
	f.on("POST /containers/create", answer(map[string]any{"Id": fakeID, "Warnings": []string{"no swap limit"}}))
	if r := f.hull("", "create", "app:1"); r.code != 0 || r.stdout != fakeID+"\n" || r.stderr != "WARNING: no swap limit\n" {
		t.Errorf("got %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}

// TestSeveral: what fails is told, and the others are done.
func TestSeveral(t *testing.T) {
	f := newFake(t)
	r := f.hull("", "stop", "nothing", "web")
	if r.code != 1 || r.stdout != "web\n" || r.stderr != "hull: No such container: nothing\n" {
		t.Errorf("got %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	r = f.hull("", "rm", "-f", "nothing", "web")
	if r.code != 0 || r.stdout != "web\n" || r.stderr != "hull: No such container: nothing\n" {
		t.Errorf("rm -f: got %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}

// TestHost: --host and DOCKER_HOST ask another engine; --root asks the one here again.
func TestHost(t *testing.T) {
	f, other := newFake(t), newFake(t)
	if r := f.hull("", "-H", "unix://"+other.sock, "start", "web"); r.code != 0 || len(r.requests) != 0 || len(other.took()) != 1 {
		t.Errorf("--host: got %d, %s, %v", r.code, r.stderr, r.requests)
	}
	t.Setenv("DOCKER_HOST", "unix://"+other.sock)
	if r := f.hull("", "start", "web"); r.code != 0 || len(r.requests) != 0 || len(other.took()) != 1 {
		t.Errorf("DOCKER_HOST: got %d, %s, %v", r.code, r.stderr, r.requests)
	}
	if r := f.hull("", "--root", "/x", "start", "web"); r.code != 0 || len(r.requests) != 1 || len(other.took()) != 0 {
		t.Errorf("--root: got %d, %s, %v", r.code, r.stderr, r.requests)
	}
	if r := f.hull("", "--host", "tcp://x:1", "ps"); r.code != 1 || !strings.Contains(r.stderr, "unix://") {
		t.Errorf("tcp: got %d, %s", r.code, r.stderr)
	}
}

// TestInfo has Docker's layout, and only what the engine said.
func TestInfo(t *testing.T) {
	f := newFake(t)
	f.on("GET /info", answer(map[string]any{
		"ID": "x", "Containers": 3, "ContainersRunning": 1, "ContainersStopped": 2, "Images": 4, "Driver": "overlayfs",
		"DriverStatus": [][]string{{"Backing layers", "id-mapped"}}, "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs",
		"CgroupVersion": "2", "Plugins": map[string]any{"Network": []string{"none", "host"}}, "MemTotal": 1 << 30, "NCPU": 2,
		"SecurityOptions": []string{"name=seccomp,profile=builtin", "name=userns"}, "KernelVersion": "6.1", "Name": "host",
		"OperatingSystem": "Debian", "OSType": "linux", "Architecture": "x86_64", "ServerVersion": "9.9", "DockerRootDir": "/var/lib/hull",
		"Runtimes": map[string]any{"hull": map[string]any{}}, "DefaultRuntime": "hull", "Warnings": []string{"WARNING: No swap limit support"},
	}))
	r := f.hull("", "info")
	if r.code != 0 || r.stderr != "WARNING: No swap limit support\n" {
		t.Errorf("got %d, %q", r.code, r.stderr)
	}
	golden(t, "info.txt", r.stdout)
	if r := f.hull("", "info", "-f", "{{.Driver}} {{.NCPU}} {{.ClientInfo.Version}}"); r.stdout != "overlayfs 2 1.2\n" {
		t.Errorf("template: got %q", r.stdout)
	}
	f.on("GET /info", refuse(503, "not today"))
	if r := f.hull("", "info"); r.code != 1 || !strings.HasPrefix(r.stdout, "Client:\n") || r.stderr != "hull: not today\n" {
		t.Errorf("without a server: got %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}

// TestVersion tells of both sides, and of the client where there is no server.
func TestVersion(t *testing.T) {
	f := newFake(t)
	r := f.hull("", "version")
	if r.code != 0 || !strings.Contains(r.stdout, "\nServer:") || !strings.Contains(r.stdout, "  API version:      1.50 (minimum version 1.24)\n") {
		t.Errorf("got %d, %q", r.code, r.stdout)
	}
	f.on("GET /version", refuse(503, "not today"))
	if r := f.hull("", "version"); r.code != 1 || !strings.HasPrefix(r.stdout, "Client:\n Version:           1.2\n") || strings.Contains(r.stdout, "Server") {
		t.Errorf("without a server: got %d, %q", r.code, r.stdout)
	}
	if r := f.hull("", "--version"); r.stdout != "Hull version 1.2, build abcdef0\n" || len(r.requests) > 0 {
		t.Errorf("--version: got %q", r.stdout)
	}
}

// TestDebug adds the kind of failure, and says nothing when all is well.
func TestDebug(t *testing.T) {
	f := newFake(t)
	if r := f.hull("", "-D", "start", "nothing"); r.stderr != "hull: No such container: nothing\n(not found, HTTP status 404)\n" {
		t.Errorf("got %q", r.stderr)
	}
}
