// Package local puts an engine into the program it is linked into: which store, which handler, which binary. Both
// mains use it, so that hulld is hull with more linked in.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"

	"hull/api"
	"hull/cli"
	"hull/client"
	"hull/config"
	"hull/engine"
	"hull/errdef"
	"hull/kernel"
	"hull/payload"
	"hull/trace"

	"golang.org/x/sys/unix"
)

// version and commit are set by the linker in a release; otherwise what Go stamped into the binary is used.
var version, commit string

// Serving serves h as o says, until the process is told to end; closing is called then.
type Serving func(ctx context.Context, h http.Handler, o cli.Serve, closing func()) error

// socketName is the socket of `hull serve`, below the run directory.
const socketName = "hull.sock"

// Heavy is what hulld has linked in and hull has not.
type Heavy struct {
	Serve         Serving
	Builder       func(*engine.Engine) api.Builder
	BuildProgress func(mode string, out *os.File) (show func(json.RawMessage), done func(), err error)
}

// Main is the whole of a main program. Without heavy, commands that need it execute hulld.
func Main(heavy *Heavy) int {
	kernel.DeepStack()
	kernel.RelaxTimers()
	v, c := build()
	t := trace.FromEnv("hull")
	t.Step("main reached")
	p := cli.Program{
		Name: filepath.Base(os.Args[0]), Version: v, Commit: c,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		LocalAPI: api.Version, Trace: t,
	}
	p.Served = filepath.Join(engine.DefaultRun, socketName)
	p.Serve = func(ctx context.Context, o cli.Serve) error {
		if heavy == nil {
			return become("hulld")
		}
		return serve(ctx, o, p, heavy)
	}
	if heavy == nil {
		p.Heavier = func() error { return become("hulld") }
	} else {
		p.BuildProgress = heavy.BuildProgress
	}
	p.ServeRegistry = func(ctx context.Context, o cli.ServeRegistry) error { return serveRegistry(ctx, o, p) }
	stop := func() {}
	defer func() { stop() }()
	p.Local = func(s cli.Store) (dial client.Dial, call client.Call, err error) {
		dial, call, stop, err = open(s, p, heavy)
		return dial, call, err
	}
	return cli.Main(p, os.Args[1:])
}

func build() (v, c string) {
	v, c = version, commit
	if v == "" {
		v = "dev"
	}
	if c != "" {
		return v, c
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v, c
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			c = s.Value[:min(7, len(s.Value))]
		}
	}
	return v, c
}

// open has the engine of a store answer calls, and serves it on socket pairs.
func open(s cli.Store, p cli.Program, heavy *Heavy) (client.Dial, client.Call, func(), error) {
	root, run, err := directories(s)
	if err != nil {
		return nil, nil, func() {}, err
	}
	e := openEngine(root, run, s.Config, p)
	o := api.Options{Local: true}
	if heavy != nil {
		o.Builder = heavy.Builder(e)
	}
	h := api.New(e, o)
	dial, stop := api.Pipe(h)
	p.Trace.Step("engine opened")
	return dial, api.Call(h), stop, nil
}

func openEngine(root, run, file string, p cli.Program) *engine.Engine {
	if file != "" { // whoever follows may be in another directory
		if abs, err := filepath.Abs(file); err == nil {
			file = abs
		}
	}
	o := engine.Options{Version: p.Version, Commit: p.Commit, Trace: p.Trace, Config: configuration(file)}
	if _, err := payload.RuntimeDigest(); err != nil {
		o.Runtime = beside("hull-runtime") // a hull made by go build carries none
	}
	self := beside("hull") // the lightest program that can do what is due after an exit
	if self == "" {
		self, _ = os.Executable()
	}
	if self != "" {
		o.Self = []string{self, "--root", root, "--run", run}
		if file != "" {
			o.Self = append(o.Self, "--config", file)
		}
	}
	return engine.Open(root, run, o)
}

// configuration is the file that was named, or root's in /etc and anybody else's in their home.
func configuration(file string) *config.Reader {
	if file != "" {
		return config.Only(file)
	}
	dir := "/etc"
	if os.Geteuid() != 0 {
		var err error
		if dir, err = os.UserConfigDir(); err != nil {
			return nil
		}
	}
	dir = filepath.Join(dir, "hull")
	return config.At(filepath.Join(dir, "hull.toml"), filepath.Join(dir, "hull.json"))
}

// serve opens the engine of a store and hands it to serving.
func serve(ctx context.Context, o cli.Serve, p cli.Program, heavy *Heavy) error {
	root, run, err := directories(o.Store)
	if err != nil {
		return err
	}
	if len(o.Hosts) == 0 {
		// Others than its owner may pass through the directory, to the socket and no further: the rest is private.
		if err := os.MkdirAll(filepath.Join(run, "containers"), 0o700); err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			if err := os.Chmod(run, 0o711); err != nil {
				return err
			}
		}
		o.Hosts = []string{"unix://" + filepath.Join(run, socketName)}
	}
	closing, cancel := context.WithCancel(context.Background())
	defer cancel()
	level := slog.LevelInfo
	if o.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(p.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	e := openEngine(root, run, o.Store.Config, p)
	c, err := e.Config()
	if err != nil {
		return err
	}
	if c.IdleTimeout != nil && !o.IdleGiven {
		o.Idle = *c.IdleTimeout
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		err := e.WatchNetwork(closing, func(err error) { log.Error("heal the network", "error", err) })
		if err != nil {
			log.Warn("the network is healed by commands only", "error", err)
		}
	})
	return heavy.Serve(ctx, api.New(e, api.Options{Log: log, Closing: closing, Builder: heavy.Builder(e)}), o, cancel)
}

// become executes another program of ours with the arguments of this one. It returns only if it cannot.
func become(name string) error {
	path := beside(name)
	if path == "" {
		var err error
		if path, err = exec.LookPath(name); err != nil {
			return errdef.Unavailable("this command needs %s, which is neither beside this program nor in PATH: install it", name)
		}
	}
	return &fs.PathError{Op: "execute", Path: path, Err: unix.Exec(path, os.Args, os.Environ())}
}

// beside is a program in the directory of this one, or "" when there is none.
func beside(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(exe), name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// directories fills in what was not chosen: root's engine is the machine's, everybody else has one of their own.
func directories(s cli.Store) (root, run string, err error) {
	if root, run = s.Root, s.Run; root == "" {
		if root, err = defaultRoot(); err != nil {
			return "", "", err
		}
	}
	if run == "" {
		if run, err = defaultRun(); err != nil {
			return "", "", err
		}
	}
	if root, err = filepath.Abs(root); err != nil {
		return "", "", err
	}
	run, err = filepath.Abs(run)
	return root, run, err
}

func defaultRoot() (string, error) {
	if os.Geteuid() == 0 {
		return engine.DefaultRoot, nil
	}
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "hull"), nil
	}
	h, err := os.UserHomeDir()
	if err != nil {
		return "", errdef.Invalid("no home directory to keep containers in: set HOME, or choose with --root")
	}
	return filepath.Join(h, ".local/share/hull"), nil
}

// defaultRun is private to the user and gone after a reboot. A user without a login session (su, cron) has no
// directory below /run and gets one in /tmp, where others could have put something of that name first.
func defaultRun() (string, error) {
	uid := os.Geteuid()
	if uid == 0 {
		return engine.DefaultRun, nil
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		return filepath.Join(d, "hull"), nil
	}
	if d := "/run/user/" + strconv.Itoa(uid); private(d, uid) {
		return filepath.Join(d, "hull"), nil
	}
	d := "/tmp/hull-" + strconv.Itoa(uid)
	if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if !private(d, uid) {
		return "", errdef.Forbidden("%s is not a private directory of yours: remove it, or choose another with --run", d)
	}
	return d, nil
}

// private says whether path is a directory, not a link to one, that only uid can use.
func private(path string, uid int) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&0o077 == 0 && int(st.Uid) == uid
}
