// Go keeps looking whether the limit to its number of processors has changed, and begins with a goroutine for that. This
// program is gone before it matters, or uses one processor anyway.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Hull-runtime is the lean program beside every container: an OCI runtime with runc's command line, for Docker,
// containerd and Podman, and the monitor that hull starts for its own containers.
//
//	hull-runtime [--root DIR] [--log FILE] create --bundle DIR ID
//	hull-runtime start ID
//	hull-runtime exec ID COMMAND
//	hull-runtime kill ID KILL; hull-runtime delete ID
//	hull-runtime monitor DIR                    (by hull only, as are discard, copy-up, move-into and files)
//
// Beware: it is executed once for every start of a container, so nothing it imports may do work before main.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/runtime/files"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// verb is one command of the OCI runtime.
type verb struct {
	name, args, what string
	run              func(*command) error
}

func verbs() []verb {
	return []verb{
		{"create", "ID", "make a container; its process waits for start", create},
		{"start", "ID", "let the process of a created container run", start},
		{"run", "ID", "create and start a container", run},
		{"exec", "ID COMMAND [ARG...]", "run a further process in a container", execute},
		{"state", "ID", "print the state of a container", printState},
		{"list", "", "list the containers", list},
		{"ps", "ID [PS-OPTION...]", "list the processes of a container", ps},
		{"kill", "ID [SIGNAL]", "send a signal to the process of a container", kill},
		{"pause", "ID", "freeze all processes of a container", pause},
		{"resume", "ID", "let the processes of a paused container go on", resume},
		{"update", "ID", "change the limits of a container", update},
		{"delete", "ID", "remove what is left of a stopped container", remove},
		{"spec", "", "write a configuration to start from", writeSpec},
		{"features", "", "print what this runtime can do", features},
	}
}

// command is one run of this program: its global options and what follows the verb.
type command struct {
	ctx       context.Context
	root      string // one directory below it per container
	log       string
	logFormat string
	debug     bool
	systemd   bool
	name      string
	args      []string
}

// exitCode is an error that says nothing but how to exit.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "monitor":
			os.Exit(monitor.Main(os.Args[2:]))
		case "discard":
			os.Exit(discard(os.Args[2:]))
		case "copy-up":
			os.Exit(copyUp(os.Args[2:]))
		case "move-into":
			os.Exit(moveInto(os.Args[2:]))
		case "files":
			os.Exit(files.Main())
		}
	}
	os.Exit(oci(os.Args[1:]))
}

// oci runs an OCI command line and returns the exit code.
func oci(args []string) int {
	c := &command{ctx: context.Background()}
	err := c.dispatch(args)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, flag.ErrHelp):
		return 0
	}
	c.report("error", err.Error())
	if c.name == "exec" {
		return 255 // distinct from what the process may exit with, as runc has it
	}
	return 1
}

func (c *command) dispatch(args []string) error {
	fs := newFlags("hull-runtime", func(w io.Writer) { usage(w) })
	fs.StringVar(&c.root, "root", defaultRoot(), "")
	fs.StringVar(&c.log, "log", "", "")
	fs.StringVar(&c.logFormat, "log-format", "text", "")
	fs.BoolVar(&c.debug, "debug", false, "")
	fs.BoolVar(&c.systemd, "systemd-cgroup", false, "")
	fs.String("criu", "", "")         // of older callers
	fs.String("rootless", "auto", "") // found out, never asked
	version := fs.Bool("version", false, "")
	fs.BoolVar(version, "v", false, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *version {
		printVersion()
		return nil
	}
	if c.logFormat != "text" && c.logFormat != "json" {
		return errdef.Invalid("unknown log-format %q", c.logFormat)
	}
	if fs.NArg() == 0 || fs.Arg(0) == "help" {
		usage(os.Stdout)
		return nil
	}
	if c.systemd {
		return errdef.Unavailable("--systemd-cgroup: this runtime makes control groups itself; configure the cgroupfs driver")
	}
	c.name, c.args = fs.Arg(0), fs.Args()[1:]
	if err := c.seal(); err != nil {
		return err
	}
	for _, v := range verbs() {
		if v.name == c.name {
			return v.run(c)
		}
	}
	return errdef.NotImplemented("no such command: %s", c.name)
}

// newFlags returns a flag set that prints nothing by itself but usage when asked for help.
func newFlags(name string, usage func(io.Writer)) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() { usage(os.Stdout) }
	return fs
}

// flags returns the flag set of the verb.
func (c *command) flags() *flag.FlagSet {
	return newFlags(c.name, func(w io.Writer) {
		for _, v := range verbs() {
			if v.name == c.name {
				fmt.Fprintf(w, "Usage: hull-runtime %s [OPTIONS] %s\n\n%s; the options are runc's.\n", v.name, v.args, v.what)
			}
		}
	})
}

// parse parses the verb's options and returns its arguments, of which there are at least min and at most max (-1: any).
func (c *command) parse(fs *flag.FlagSet, min, max int) ([]string, error) {
	if err := fs.Parse(c.args); err != nil {
		return nil, err
	}
	n := fs.NArg()
	if n < min || max >= 0 && n > max {
		return nil, errdef.Invalid("hull-runtime %s: %d arguments are too %s; see hull-runtime %s --help", c.name, n, map[bool]string{true: "few", false: "many"}[n < min], c.name)
	}
	return fs.Args(), nil
}

// strings collects the values of a flag given several times.
type stringList []string

func (l *stringList) String() string     { return strings.Join(*l, ",") }
func (l *stringList) Set(v string) error { *l = append(*l, v); return nil }

func defaultRoot() string {
	if os.Geteuid() != 0 {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return dir + "/hull-runtime"
		}
	}
	return "/run/hull-runtime"
}

// version is set when a release is built.
var version = "0.1.0-dev"

func printVersion() {
	fmt.Printf("hull-runtime version %s\nspec: %s\n", version, specs.Version)
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: hull-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND\n\nAn OCI runtime.\n\n")
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-9s %-22s %s\n", v.name, v.args, v.what)
	}
}

// report tells the person, and writes to the log file where callers like containerd look for the reason. With a log a
// warning goes nowhere else: our stderr is that of the container.
func (c *command) report(level, msg string) {
	if c.log == "" || level == "error" {
		fmt.Fprintf(os.Stderr, "hull-runtime: %s\n", msg)
	}
	if c.log == "" {
		return
	}
	f, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Fprintf(os.Stderr, "hull-runtime: log: %v\n", err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString(logLine(c.logFormat, level, msg, time.Now())); err != nil {
		fmt.Fprintf(os.Stderr, "hull-runtime: log: %v\n", err)
	}
}
