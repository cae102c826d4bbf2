package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"hull/test/rig"
)

// pair is two engines, of which the one reaches the other through Debian's sshd.
type pair struct {
	here, there *rig.Hull
	dir         string // of keys and configurations
	remote      string // a command that is the other hull
}

// sshd starts one on loopback with keys of its own, and an engine whose ssh knows the way to it as "box".
func sshd(t *testing.T) *pair {
	rig.Root(t)
	daemon, keygen := rig.Tool(t, "sshd"), rig.Tool(t, "ssh-keygen")
	p := &pair{here: rig.Engine(t), there: rig.Engine(t), dir: t.TempDir()}
	p.remote = strings.Join([]string{p.there.Program, "--root", p.there.Root, "--run", p.there.RunDir, "--config", p.there.Dir + "/hull.toml"}, " ")
	for _, key := range []string{"host", "user"} {
		do(t, nil, keygen, "-q", "-t", "ed25519", "-N", "", "-f", p.file(key))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close() // nobody else is in the test's network namespace
	p.write(t, "sshd_config", 0o600, "Port "+port, "ListenAddress 127.0.0.1", "HostKey "+p.file("host"), "PidFile none", "UsePAM no",
		"AuthorizedKeysFile "+p.file("user.pub"), "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"PermitRootLogin prohibit-password", "PermitUserEnvironment no", "UseDNS no")
	p.write(t, "ssh_config", 0o600, "Host box", "HostName 127.0.0.1", "Port "+port, "User root", "IdentityFile "+p.file("user"),
		"IdentitiesOnly yes", "IdentityAgent none", "UserKnownHostsFile "+p.file("known"), "GlobalKnownHostsFile /dev/null", "StrictHostKeyChecking yes",
		"BatchMode yes", "ControlPath none", "HostKeyAlias box", "LogLevel ERROR")
	p.know(t, "host.pub")
	// ssh looks for its configuration where the password file says that home is, and the test's is elsewhere.
	p.write(t, "bin/ssh", 0o700, "#!/bin/sh", "exec /usr/bin/ssh -F "+p.file("ssh_config")+` "$@"`)
	for i, v := range p.here.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			p.here.Env[i] = "PATH=" + p.file("bin") + ":" + path
		}
	}
	p.command(p.remote)
	if err := os.Mkdir("/run/sshd", 0o755); err == nil { // made at boot where sshd is a service
		t.Cleanup(func() { os.Remove("/run/sshd") })
	}
	log, err := os.Create(p.file("sshd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(daemon, "-D", "-e", "-f", p.file("sshd_config"))
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(p.file("sshd.log"))
			t.Logf("sshd: %s", text)
		}
	})
	rig.Eventually(t, "sshd listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return p
}

func (p *pair) file(name string) string { return filepath.Join(p.dir, name) }

func (p *pair) write(t *testing.T, name string, mode os.FileMode, lines ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p.file(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.file(name), []byte(strings.Join(lines, "\n")+"\n"), mode); err != nil {
		t.Fatal(err)
	}
}

// know makes a public key the one by which the host is known.
func (p *pair) know(t *testing.T, key string) {
	t.Helper()
	public, err := os.ReadFile(p.file(key))
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "known", 0o600, "box "+string(public))
}

// command is what the other side runs for hull.
func (p *pair) command(line string) {
	p.here.Env = append(p.here.Env, "HULL_SSH_COMMAND="+line)
}

// idle is when nothing of ours runs on the other side any more. What is in the stores then is to stay.
func (p *pair) idle(t *testing.T) {
	t.Helper()
	defer p.there.Mark(t)
	defer p.here.Mark(t)
	rig.Eventually(t, "the other side ends", func() bool { return len(p.there.Pids()) == 0 })
}

// load gives the engine an image of layers that do not compress, of so many bytes each.
func load(t *testing.T, h *rig.Hull, tag string, sizes ...int) {
	t.Helper()
	i := rig.Layered(t)
	i.Tag = tag
	for n, size := range sizes {
		data := make([]byte, size)
		r := rand.NewChaCha8([32]byte{byte(n), byte(size >> 10)})
		r.Read(data)
		i.Layers = append(i.Layers, []rig.File{{Name: fmt.Sprintf("data%d", n), Mode: 0o644, Data: string(data)}})
	}
	h.Load(t, i.OCI(t))
}

func digestOf(t *testing.T, h *rig.Hull, name string) string {
	t.Helper()
	return h.Must(t, "image", "inspect", "--format", "{{.Id}} {{index .RepoDigests 0}}", name)
}

// TestSSH: an image goes to another engine and comes back with the same digests, runs there at once, and only what is
// missing travels.
func TestSSH(t *testing.T) {
	p := sshd(t)
	p.command(p.remote + " --debug") // tells each request
	load(t, p.here, "app:1", 3<<20, 2<<20)
	load(t, p.here, "app:2", 3<<20, 2<<20, 1<<20)
	r := p.here.Run(t, "push", "ssh://box/app:1")
	if r.Code != 0 || !strings.Contains(r.Stdout, "The push refers to repository [ssh://box/app]") || strings.Count(r.Stdout, ": Pushed\n") == 0 {
		t.Fatalf("push: %+v", r)
	}
	if got, want := digestOf(t, p.there, "app:1"), digestOf(t, p.here, "app:1"); got != want {
		t.Errorf("pushed: want %s, got %s", want, got)
	}
	if got := p.there.Must(t, "run", "--rm", "app:1"); got != "hello from app in /work" {
		t.Errorf("there it says %q", got)
	}
	uploads := func(args ...string) int {
		t.Helper()
		r := p.here.Run(t, args...)
		if r.Code != 0 {
			t.Fatalf("%v: %+v", args, r)
		}
		if !strings.Contains(r.Stderr, "/v2/") {
			t.Fatalf("%v: the other side tells no request: %s", args, r.Stderr)
		}
		n := 0
		for line := range strings.Lines(r.Stderr) {
			if strings.Contains(line, "/blobs/uploads/") && strings.Contains(line, "PUT") {
				n++
			}
		}
		return n
	}
	if n := uploads("push", "ssh://box/app:1"); n != 0 {
		t.Errorf("the second push sends %d blobs", n)
	}
	if n := uploads("push", "ssh://root@box/app:2"); n != 2 { // a layer and the configuration
		t.Errorf("a push of one layer more sends %d blobs", n)
	}
	before := origins(t, p.here)
	p.here.Must(t, "rmi", "app:1", "app:2")
	p.here.Must(t, "trash", "empty", "--force")
	if out := p.here.Must(t, "pull", "-q", "ssh://box/app:2"); out != "docker.io/library/app:2" {
		t.Errorf("pull -q: %q", out)
	}
	if got, want := digestOf(t, p.here, "app:2"), digestOf(t, p.there, "app:2"); got != want {
		t.Errorf("pulled: want %s, got %s", want, got)
	}
	r = p.here.Run(t, "pull", "--all-tags", "ssh://box/app")
	if r.Code != 0 || strings.Contains(r.Stderr, "GET /v2/app/blobs/sha256:") && strings.Count(r.Stdout, "Pull complete") > 0 {
		t.Errorf("all tags, whose layers are here: %+v", r)
	}
	if got, want := digestOf(t, p.here, "app:1"), digestOf(t, p.there, "app:1"); got != want {
		t.Errorf("all tags: want %s, got %s", want, got)
	}
	if got := p.here.Must(t, "image", "log", "--format", "{{.By}}", "app:2"); !strings.Contains(got, "pull from ssh://box") {
		t.Errorf("the log says %q", got)
	}
	if after := origins(t, p.here); after != before || before != "" {
		t.Errorf("where blobs came from is remembered: %q, %q", before, after)
	}
	if r := p.here.Run(t, "pull", "ssh://box/nothing:1"); r.Code != 1 || !strings.Contains(r.Stderr, "ssh://box has no image nothing:1") {
		t.Errorf("no such image: %+v", r)
	}
	if r := p.here.Run(t, "pull", "--format", "json", "ssh://box/app:2"); r.Code != 0 || !strings.Contains(r.Stdout, `{"status":"Status: Image is up to date for app:2"`) {
		t.Errorf("in JSON: %+v", r)
	}
	p.idle(t)
}

func origins(t *testing.T, h *rig.Hull) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.Root, "origins"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return fmt.Sprint(entries)[1 : len(fmt.Sprint(entries))-1]
}

// TestSSHServed: through an engine that is served, ssh is the client's.
func TestSSHServed(t *testing.T) {
	p := sshd(t)
	load(t, p.there, "app:1", 1<<20)
	server := p.here.Serve(t)
	r := p.here.Run(t, "-H", server.Host, "pull", "ssh://box/app:1")
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	if got, want := digestOf(t, p.here, "app:1"), digestOf(t, p.there, "app:1"); got != want {
		t.Errorf("want %s, got %s", want, got)
	}
	server.Stop()
	p.idle(t)
}

// TestSSHInterrupted: what broke goes on where it broke, also when ssh was killed in the middle.
func TestSSHInterrupted(t *testing.T) {
	p := sshd(t)
	const size, cut = 24 << 20, 12 << 20
	load(t, p.there, "big:1", size)
	// The first command gives so much and then nothing, until ssh ends. No program of coreutils passes on what it has at once
	// and counts bytes.
	p.write(t, "stalled", 0o700, "#!"+rig.Tool(t, "perl"), fmt.Sprintf("my $n = %d;", cut),
		`while ($n > 0 && (my $r = sysread(STDIN, my $b, $n < 65536 ? $n : 65536))) { syswrite(STDOUT, $b); $n -= $r; }`,
		`while (sysread(STDIN, my $b, 65536)) {}`)
	p.command(fmt.Sprintf("stalled() { %s \"$@\" | %s; }; stalled", p.remote, p.file("stalled")))
	cmd := p.here.Cmd(t, "pull", "ssh://box/big:1")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "half of it comes", func() bool { return ingested(p.here) > cut*3/4 })
	if err := syscall.Kill(child(t, cmd.Process.Pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), "ssh to box was ended: signal: killed") {
		t.Errorf("ssh was killed: %v\n%s", err, said.String())
	}
	p.idle(t)
	have := ingested(p.here)
	if have <= cut*3/4 {
		t.Errorf("of %d bytes that had come, %d are kept", cut, have)
	}
	counted := p.file("counted")
	p.command(fmt.Sprintf("counted() { %s \"$@\" | tee %s; }; counted", p.remote, counted))
	if r := p.here.Run(t, "pull", "ssh://box/big:1"); r.Code != 0 {
		t.Fatalf("again: %+v", r)
	}
	st, err := os.Stat(counted)
	if err != nil || st.Size() > size-have+(4<<20) {
		t.Errorf("of %d bytes %d were here, and %d came: %v", size, have, st.Size(), err)
	}
	if got, want := digestOf(t, p.here, "big:1"), digestOf(t, p.there, "big:1"); got != want {
		t.Errorf("want %s, got %s", want, got)
	}
	p.idle(t)
}

// TestSSHPushInterrupted: a push that broke goes on in the middle of the blob, also when ssh was killed; unless what had come
// is damaged: then the blob is sent once more.
func TestSSHPushInterrupted(t *testing.T) {
	p := sshd(t)
	const size, cut = 12 << 20, 10 << 20
	p.write(t, "stalled", 0o700, "#!"+rig.Tool(t, "perl"), fmt.Sprintf("my $n = %d;", cut),
		`while ($n > 0 && (my $r = sysread(STDIN, my $b, $n < 65536 ? $n : 65536))) { syswrite(STDOUT, $b); $n -= $r; }`,
		`while (sysread(STDIN, my $b, 65536)) {}`)
	for _, c := range []struct {
		tag    string
		damage bool
	}{{"big:1", false}, {"big:2", true}} {
		load(t, p.here, c.tag, size+len(c.tag)+int(c.tag[4])) // another layer for each
		p.command(fmt.Sprintf("stalled() { %s | %s \"$@\"; }; stalled", p.file("stalled"), p.remote))
		cmd := p.here.Cmd(t, "push", "ssh://box/"+c.tag)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		rig.Eventually(t, "half of it arrives, beside smaller layers", func() bool { return ingested(p.there) > cut/2 })
		if err := syscall.Kill(child(t, cmd.Process.Pid), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), "ssh to box was ended: signal: killed") {
			t.Errorf("ssh was killed: %v\n%s", err, said.String())
		}
		p.idle(t)
		have := ingested(p.there)
		if have <= cut/2 {
			t.Errorf("of %d bytes that had come, %d are kept", cut, have)
		}
		limit := size - have + 4<<20
		if c.damage {
			uploads, err := filepath.Glob(filepath.Join(p.there.Root, "ingest/upload-*/data"))
			if err != nil || len(uploads) == 0 {
				t.Fatal(uploads, err)
			}
			for _, data := range uploads {
				st, err := os.Stat(data)
				if err == nil {
					err = os.WriteFile(data, make([]byte, st.Size()), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			limit = 2*size - have + 4<<20
		}
		counted := p.file("counted")
		p.command(fmt.Sprintf("counted() { tee %s | %s \"$@\"; }; counted", counted, p.remote))
		if r := p.here.Run(t, "push", "ssh://box/"+c.tag); r.Code != 0 {
			t.Fatalf("again: %+v", r)
		}
		p.idle(t)
		if st, err := os.Stat(counted); err != nil || st.Size() > limit {
			t.Errorf("%s: of %d bytes %d were there, and %d were sent: %v", c.tag, size, have, st.Size(), err)
		}
		if got, want := digestOf(t, p.there, c.tag), digestOf(t, p.here, c.tag); got != want {
			t.Errorf("want %s, got %s", want, got)
		}
		if n := ingested(p.there); n != 0 {
			t.Errorf("%d bytes of uploads are left", n)
		}
	}
}

// ingested is how much has come of the largest blob that is not whole: small ones become whole in between.
func ingested(h *rig.Hull) (n int64) {
	files, _ := filepath.Glob(filepath.Join(h.Root, "ingest/*/data"))
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			n = max(n, st.Size())
		}
	}
	return n
}

// child is the one process that pid started.
func child(t *testing.T, pid int) int {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range threads {
		b, _ := os.ReadFile(f)
		if fields := strings.Fields(string(b)); len(fields) > 0 {
			n, err := strconv.Atoi(fields[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%d has no child", pid)
	return 0
}

// TestSSHRefused: what stands in the way is said in a sentence, and leaves nothing.
func TestSSHRefused(t *testing.T) {
	p := sshd(t)
	load(t, p.here, "app:1")
	for _, c := range []struct{ name, command, want string }{
		{"no hull", "hull-that-is-not-there", "box has no command hull-that-is-not-there: "},
		{"not executable", "/etc/passwd", "box cannot execute /etc/passwd: "},
		{"old hull", "echo 'unknown command: registry' >&2; exit 125;", "on box ended with status 125: unknown command: registry"},
		{"banner", "echo 'Welcome to box'; " + p.remote, `box says "Welcome to box" before Hull can: its shell's start-up files must print nothing`},
		{"read-only", p.remote + " registry serve --stdio #", "read-only"},
		{"ends at once", "true", "box ended the connection"},
	} {
		p.command(c.command)
		r := p.here.Run(t, "push", "ssh://box/app:1")
		if r.Code != 1 || !strings.Contains(r.Stderr, c.want) {
			t.Errorf("%s: want %q, got %+v", c.name, c.want, r)
		}
	}
	p.command(p.remote)
	if r := p.here.Run(t, "push", "ssh://nobody-known@box/app:1"); r.Code != 1 || !strings.Contains(r.Stderr, "box does not let you in") {
		t.Errorf("a stranger: %+v", r)
	}
	p.know(t, "user.pub")
	if r := p.here.Run(t, "push", "ssh://box/app:1"); r.Code != 1 || !strings.Contains(r.Stderr, "the key of box is not known to ssh, or has changed") {
		t.Errorf("another key: %+v", r)
	}
	if out := p.there.Must(t, "images", "-q"); out != "" {
		t.Errorf("the other side has %s", out)
	}
	p.idle(t)
}

// TestSSHHost: the engine of another machine is driven over ssh, with stdin and its end.
func TestSSHHost(t *testing.T) {
	p := sshd(t)
	p.there.Load(t, rig.Busybox(t))
	if out := p.here.Must(t, "-H", "ssh://box", "images", "--format", "{{.Repository}}"); out != "busybox" {
		t.Errorf("images: %q", out)
	}
	r := p.here.RunStdin(t, strings.NewReader("one\ntwo\n"), "-H", "ssh://root@box", "run", "--rm", "-i", "busybox", "sh", "-c", "wc -l; echo said >&2; exit 3")
	if r.Code != 3 || strings.TrimSpace(r.Stdout) != "2" || r.Stderr != "said\n" {
		t.Errorf("run: %+v", r)
	}
	p.command("hull-that-is-not-there")
	if r := p.here.Run(t, "-H", "ssh://box", "ps"); r.Code != 1 || !strings.Contains(r.Stderr, "box has no command hull-that-is-not-there: ") {
		t.Errorf("no hull: %+v", r)
	}
	p.command("echo Welcome;" + p.remote)
	if r := p.here.Run(t, "-H", "ssh://box", "ps"); r.Code != 1 || !strings.Contains(r.Stderr, `box says "Welcome" before Hull can`) {
		t.Errorf("a banner: %+v", r)
	}
	p.idle(t)
}
