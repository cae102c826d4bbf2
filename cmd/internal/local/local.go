// Package local puts an engine into the program it is linked into: which store, which handler, which binary. Both
// mains use it, so that hulld is hull with more linked in.
package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"hull/api"
	"hull/cli"
	"hull/client"
	"hull/engine"
	"hull/errdef"
	"hull/kernel"
	"hull/payload"
	"hull/trace"

	"golang.org/x/sys/unix"
)

// version and commit are set by the linker in a release; otherwise what Go stamped into the binary is used.
var version, commit string

// Main is the whole of a main program.
func Main() int {
	kernel.RelaxTimers()
	v, c := build()
	t := trace.FromEnv("hull")
	t.Step("main reached")
	p := cli.Program{
		Name: filepath.Base(os.Args[0]), Version: v, Commit: c,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		LocalAPI: api.Version, Trace: t,
	}
	stop := func() {}
	defer func() { stop() }()
	p.Local = func(s cli.Store) (dial client.Dial, err error) {
		dial, stop, err = open(s, p)
		return dial, err
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

// open serves the engine of a store on socket pairs.
func open(s cli.Store, p cli.Program) (client.Dial, func(), error) {
	root, run, err := directories(s)
	if err != nil {
		return nil, func() {}, err
	}
	o := engine.Options{Version: p.Version, Commit: p.Commit, Trace: p.Trace}
	if _, err := payload.RuntimeDigest(); err != nil {
		o.Runtime = beside("hull-runtime") // a hull made by go build carries none
	}
	if exe, err := os.Executable(); err == nil {
		o.Self = []string{exe, "--root", root, "--run", run}
	}
	dial, stop := api.Pipe(api.New(engine.Open(root, run, o), api.Options{}))
	p.Trace.Step("engine opened")
	return dial, stop, nil
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
