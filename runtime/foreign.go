package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/kernel"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Foreign is an OCI runtime of others, driven by its command line as runc's documentation has it and all others follow:
//
//	create --bundle --pid-file [--console-socket]   the init process becomes our child: we are the subreaper
//	start
//	exec --process --pid-file --detach
//	delete --force
//
// The root file system is mounted in a mount namespace that only the runtime's create sees, so that nothing is left on
// the host when everybody dies. Beware: such a container does not end with its monitor; whoever meets it next ends it.
type Foreign struct {
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"` // before the command
}

// foreignVersion is the oldest version of the runtime-spec that has all that such containers get: some runtimes refuse one
// newer than they are.
const foreignVersion = "1.0.2"

// Files in the directory of a foreign container, which is in its bundle.
const (
	foreignDir = "foreign"
	foreignLog = "log.json"
	foreignPid = "pid"
)

// foreign is one container of a Foreign.
type foreign struct {
	*Foreign
	id, dir string
}

func (f *Foreign) container(bundle, id string) *foreign {
	return &foreign{f, id, filepath.Join(bundle, foreignDir)}
}

// PreparedForeign is Prepared for a Foreign.
type PreparedForeign struct {
	*foreign
	cfg     *Config
	spec    *specs.Spec
	overlay int
}

// PrepareForeign is Prepare for a configuration that names a Foreign.
func PrepareForeign(ctx context.Context, cfg *Config) (_ *PreparedForeign, err error) {
	p := &PreparedForeign{foreign: cfg.Foreign.container(cfg.Bundle, cfg.ID), cfg: cfg, overlay: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Discard(ctx))
		}
	}()
	if cfg.Root == nil {
		return nil, errdef.Invalid("a runtime of others needs layers to make its root file system of")
	}
	if err := os.MkdirAll(filepath.Join(p.dir, "rootfs"), 0o700); err != nil {
		return nil, err
	}
	o := &kernel.Overlay{Lower: cfg.Root.Lower, Upper: cfg.Root.Upper, Work: cfg.Root.Work, Scratch: cfg.Bundle}
	if p.overlay, err = o.Mount(); err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	spec := *cfg.Spec
	process := *spec.Process
	spec.Process = &process
	spec.Root = &specs.Root{Path: "rootfs", Readonly: cfg.Spec.Root.Readonly}
	if err := resolveFor(&spec, &process, cfg.Groups, p.overlay); err != nil {
		return nil, err
	}
	linux := *spec.Linux
	linux.CgroupsPath = path.Join("/", cfg.cgroupPath()) // a relative one is below the cgroup of whoever asks
	spec.Linux = &linux
	spec.Version = foreignVersion
	p.spec = &spec
	return p, p.write("config.json", &spec)
}

// resolveFor replaces the names in p, which only our own runtime looks up, by numbers. root is a descriptor.
func resolveFor(spec *specs.Spec, p *specs.Process, groups []string, root int) error {
	b := &boot{cfg: &Config{Spec: spec, Groups: groups}, spec: spec, process: p, root: root}
	if err := b.resolveUser(); err != nil {
		return err
	}
	p.User.UID, p.User.GID, p.User.AdditionalGids, p.User.Username = b.user.uid, b.user.gid, b.user.groups, ""
	if !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		p.Env = append(slices.Clone(p.Env), "HOME="+b.user.home)
	}
	return nil
}

func (f *foreign) write(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(f.dir, name), b, 0o600)
}

// Run makes the container's process and starts it.
func (p *PreparedForeign) Run(ctx context.Context) (_ *Container, err error) {
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
			defer cancel()
			err = errors.Join(err, p.delete(ctx), p.Discard(ctx))
		}
	}()
	c := new(Container)
	args := []string{"create", "--bundle", p.dir}
	c.Pid, c.Pidfd, c.Terminal, err = p.begin(ctx, args, p.id, p.cfg.Stdio, p.spec.Process.Terminal, p.apart)
	if err != nil {
		return nil, err
	}
	undo := func(err error) error {
		c.Pidfd.Close()
		if c.Terminal != nil {
			c.Terminal.Close()
		}
		_ = unix.Kill(c.Pid, unix.SIGKILL)
		_, _ = unix.Wait4(c.Pid, nil, unix.WALL, nil)
		return err
	}
	if l := p.cfg.Link; l != nil {
		if err := p.connect(l, c.Pid); err != nil {
			return nil, undo(err)
		}
	}
	if err := p.command(ctx, "start", p.id); err != nil {
		return nil, undo(err)
	}
	unix.Close(p.overlay)
	p.overlay = -1
	return c, nil
}

func (p *PreparedForeign) connect(l *Link, pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return l.Connect(int(ns.Fd()))
}

// Discard gives back what was prepared.
func (p *PreparedForeign) Discard(context.Context) error {
	if p.overlay >= 0 {
		unix.Close(p.overlay)
		p.overlay = -1
	}
	return nil
}

// apart calls do on a thread with a mount namespace of its own, in which the root file system is mounted. The thread ends
// with it; what do has started keeps its own copy.
func (p *PreparedForeign) apart(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return os.NewSyscallError("unshare mount namespace", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
				return os.NewSyscallError("cut mount propagation", err)
			}
			root := filepath.Join(p.dir, "rootfs")
			if err := unix.MoveMount(p.overlay, "", unix.AT_FDCWD, root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return &os.PathError{Op: "attach root file system", Path: root, Err: err}
			}
			return do()
		}()
	}()
	return <-done
}

// begin runs a command that leaves a process behind, which is our child then.
func (f *foreign) begin(ctx context.Context, args []string, id string, stdio [3]*os.File, terminal bool, around func(func() error) error) (pid int, pidfd, tty *os.File, err error) {
	pidFile := filepath.Join(f.dir, foreignPid+strconv.Itoa(int(time.Now().UnixNano())))
	args = append(args, "--pid-file", pidFile)
	defer os.Remove(pidFile)
	var console *consoleSocket
	if terminal {
		if console, err = listenConsole(); err != nil {
			return 0, nil, nil, err
		}
		defer console.close()
		args = append(args, "--console-socket", console.path)
		stdio = [3]*os.File{}
	}
	// Whoever the runtime leaves behind becomes our child: waiting for it tells how it ended.
	if err := adopt(); err != nil {
		return 0, nil, nil, err
	}
	adopted.mu.Lock()
	defer adopted.mu.Unlock()
	if err := f.run(ctx, stdio, around, append(args, id)...); err != nil {
		return 0, nil, nil, err
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, nil, nil, err
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil || pid <= 0 {
		return 0, nil, nil, fmt.Errorf("%s wrote no pid: %q", f.Path, b)
	}
	adopted.pids[pid] = true
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, nil, nil, os.NewSyscallError("pidfd_open", err)
	}
	pidfd = os.NewFile(uintptr(fd), "pidfd")
	if terminal {
		if tty, err = console.receive(); err != nil {
			pidfd.Close()
			return 0, nil, nil, err
		}
	}
	return pid, pidfd, tty, nil
}

// command is run for one that leaves nobody behind.
func (f *foreign) command(ctx context.Context, args ...string) error {
	if err := adopt(); err != nil {
		return err
	}
	adopted.mu.Lock()
	defer adopted.mu.Unlock()
	return f.run(ctx, [3]*os.File{}, nil, args...)
}

// run runs the runtime to its end. What it says goes to its log, from which an error is taken. The caller holds
// adopted.mu.
func (f *foreign) run(ctx context.Context, stdio [3]*os.File, around func(func() error) error, args ...string) error {
	log := filepath.Join(f.dir, foreignLog)
	_ = os.Remove(log) // the last command's
	line := slices.Concat(f.Args, []string{"--root", filepath.Join(f.dir, "state"), "--log", log, "--log-format", "json"}, args)
	cmd := exec.CommandContext(ctx, f.Path, line...)
	var said bytes.Buffer
	if args[0] == "create" || args[0] == "exec" { // those two hand their stdio on
		null, err := ownNull()
		if err != nil {
			return err
		}
		defer null.Close()
		for i := range stdio {
			if stdio[i] == nil {
				stdio[i] = null
			}
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	} else {
		cmd.Stderr = &said
	}
	cmd.WaitDelay = time.Second
	if around == nil {
		around = func(do func() error) error { return do() }
	}
	err := runOwn(cmd, around)
	var status *exec.ExitError
	switch {
	case errors.As(err, &status):
		return f.failure(log, said.String(), err)
	case err != nil:
		return errdef.As(errdef.ErrUnavailable, fmt.Errorf("runtime %s: %w", f.Path, err))
	}
	return nil
}

// ownNull is a null device that is not the host's: crun gives the standard streams of a process to its user, /dev/null of
// the host too.
func ownNull() (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	dir, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(dir)
	if err := unix.Mknodat(dir, "null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		return nil, os.NewSyscallError("mknod", err)
	}
	fd, err := unix.Openat(dir, "null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return os.NewFile(uintptr(fd), "null"), nil
}

// failure is the last error in the runtime's log. Whether the command is at fault has to be told from the text.
func (f *foreign) failure(log, said string, err error) error {
	text := strings.TrimSpace(said)
	b, _ := os.ReadFile(log)
	for line := range bytes.Lines(b) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			text = entry.Msg
		}
	}
	if text == "" {
		text = err.Error()
	}
	failed := fmt.Errorf("%s: %s", filepath.Base(f.Path), text)
	switch low := strings.ToLower(text); {
	case strings.Contains(low, "executable file") && strings.Contains(low, "not found"),
		strings.Contains(low, "exec: ") && strings.Contains(low, "no such file or directory"):
		return errdef.As(errdef.ErrNoCommand, failed)
	case strings.Contains(low, "permission denied") && (strings.Contains(low, "exec") || strings.Contains(low, "open executable")):
		return errdef.As(errdef.ErrCannotRun, failed)
	}
	return failed
}

// exec is Exec for a container of a Foreign.
func (f *foreign) exec(ctx context.Context, t *Target, p *specs.Process, stdio [3]*os.File) (*Process, error) {
	process := *p
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", t.Pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	if err := resolveFor(t.Spec, &process, t.Groups, root); err != nil {
		return nil, err
	}
	name := "process" + strconv.Itoa(int(time.Now().UnixNano())) + ".json"
	if err := f.write(name, &process); err != nil {
		return nil, err
	}
	defer os.Remove(filepath.Join(f.dir, name))
	args := []string{"exec", "--detach", "--process", filepath.Join(f.dir, name)}
	if process.Terminal {
		args = append(args, "--tty")
	}
	out := new(Process)
	out.Pid, out.Pidfd, out.Terminal, err = f.begin(ctx, args, f.id, stdio, process.Terminal, nil)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// delete has the runtime forget the container, if it still knows it.
func (f *foreign) delete(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(f.dir, "state", f.id)); err != nil {
		return nil
	}
	return f.command(ctx, "delete", "--force", f.id)
}

// consoleSocket is where a runtime sends the master of the terminal it made.
type consoleSocket struct {
	fd   int
	path string
	dir  string
}

// listenConsole makes the socket in a short path of its own: the address of a unix socket has 108 bytes.
func listenConsole() (*consoleSocket, error) {
	dir, err := os.MkdirTemp("/run", "hull-tty-")
	if err != nil {
		return nil, err
	}
	s := &consoleSocket{fd: -1, dir: dir, path: filepath.Join(dir, "s")}
	if s.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err == nil {
		if err = unix.Bind(s.fd, &unix.SockaddrUnix{Name: s.path}); err == nil {
			err = unix.Listen(s.fd, 1)
		}
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("console socket: %w", err)
	}
	return s, nil
}

// receive takes the descriptor. The runtime has ended: what it sent is there, or nothing will come.
func (s *consoleSocket) receive() (*os.File, error) {
	c, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("the runtime sent no terminal: %w", err)
	}
	defer unix.Close(c)
	text, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(c, text, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive terminal: no descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive terminal: no descriptor: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

func (s *consoleSocket) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
	_ = os.Remove(s.path)
	_ = os.Remove(s.dir)
}
