// Package cli is the command line: Docker's commands, flags, tables and exit codes. One file per command, named
// like the command; each decodes its arguments, calls the client and prints.
//
//	os.Exit(cli.Main(cli.Program{Name: "hull", Local: local}, os.Args[1:]))
//
// It knows only client: where the engine runs, in this process or behind a socket, is the business of main.
//
// Beware: names, labels, logs and errors come from images and servers. Whatever goes to a terminal goes through
// a.out and a.err, which make control characters visible; only the stdio of a container passes unchanged.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"hull/client"
	"hull/errdef"
	"hull/trace"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Program is what a main program wires.
type Program struct {
	Name    string // how the program is called in its messages
	Version string
	Commit  string

	// Local returns the engine in this process, on the store that was asked for. It is called when no --host
	// and no DOCKER_HOST names another, and not before something is asked of it.
	Local func(Store) (client.Dial, client.Call, error)
	// Serve serves the engine in this process to others, or executes the program that does. It returns at its end.
	Serve func(context.Context, Serve) error
	// ServeRegistry offers the images of a store as a registry. It returns at its end.
	ServeRegistry func(context.Context, ServeRegistry) error
	// Heavier executes the program that has what this one lacks: builds. nil: this is it.
	Heavier func() error
	// BuildProgress shows the progress of a build, in one of buildx's ways: auto, plain, tty, rawjson, quiet. show takes
	// BuildKit's SolveStatus as JSON; done is called once, after the last, and returns when all is shown.
	BuildProgress func(mode string, out *os.File) (show func(json.RawMessage), done func(), err error)
	// Served is the socket where the machine's engine may be served to users who are not root.
	Served string
	// LocalAPI is the API version the engine in this process speaks.
	LocalAPI string

	Stdin          *os.File
	Stdout, Stderr *os.File

	Trace *trace.Trace // nil unless HULL_TRACE is set
}

// Store says where the state of an engine lives. An empty field is the default of the user.
type Store struct {
	Root   string // what lasts
	Run    string // what a reboot takes away
	Config string // the file of settings, which has to be there
}

// Main runs one command and returns the exit status.
func Main(p Program, args []string) int {
	a := newApp(p)
	defer a.close()
	err := a.execute(args)
	a.Trace.Step("done")
	if a.Trace != nil {
		a.Trace.Write(a.Stderr)
	}
	return a.report(err)
}

// app is one run of the program.
type app struct {
	Program
	global

	out *output // what the command is asked for
	err *output // everything said about it

	screen *screen // the terminal, if stdin is one and is in raw mode

	client     *client.Client // use engine()
	completing bool           // for a shell
	cmd        *cobra.Command // the command that runs, for messages
}

// global are the flags that stand before the command.
type global struct {
	host    string
	context string
	store   Store
	chosen  bool // the store, on the command line: then the engine here is meant, whatever DOCKER_HOST says
	// dockerDir is where Docker's client keeps its configuration; "" is the usual place.
	dockerDir  string
	dockerRead *dockerConfig // use docker()
	debug      bool
	version    bool
	help       bool
}

func newApp(p Program) *app {
	a := &app{Program: p}
	a.out = newOutput(p.Stdout)
	a.err = newOutput(p.Stderr)
	a.screen = newScreen(p.Stdin)
	a.store = Store{Root: os.Getenv("HULL_ROOT"), Run: os.Getenv("HULL_RUN"), Config: os.Getenv("HULL_CONFIG")}
	return a
}

func (a *app) close() {
	a.screen.restore()
	if a.client != nil {
		a.client.Close()
	}
}

func (a *app) globalFlags() *pflag.FlagSet {
	f := pflag.NewFlagSet(a.Name, pflag.ContinueOnError)
	f.SetInterspersed(false)
	f.Usage = func() {}
	f.StringVarP(&a.host, "host", "H", "", "Engine to ask instead of the one in this process: unix:///path, ssh://[user@]host (HULL_HOST, DOCKER_HOST)")
	f.StringVarP(&a.context, "context", "c", "", "Name of the context to use")
	f.StringVar(&a.store.Root, "root", a.store.Root, "Directory of images and containers (HULL_ROOT)")
	f.StringVar(&a.store.Run, "run", a.store.Run, "Directory of what a reboot may take away (HULL_RUN)")
	f.StringVar(&a.store.Config, "config", a.store.Config, "File of settings (HULL_CONFIG); a directory is Docker's of its client (DOCKER_CONFIG)")
	f.BoolVarP(&a.debug, "debug", "D", false, "Tell more when something fails")
	f.BoolVarP(&a.version, "version", "v", false, "Print the version and quit")
	f.BoolVar(&a.help, "help", false, "Print usage")
	f.StringP("log-level", "l", "info", "Accepted for Docker's sake, without effect")
	f.Lookup("log-level").Hidden = true
	return f
}

func (a *app) execute(args []string) error {
	flags := a.globalFlags()
	if err := flags.Parse(args); err != nil {
		return a.usageError(nil, err)
	}
	a.storeChosen(flags)
	rest := flags.Args()
	switch {
	case a.version:
		a.out.printf("%s version %s, build %s\n", strings.ToUpper(a.Name[:1])+a.Name[1:], a.Version, orUnknown(a.Commit))
		return nil
	case a.help || len(rest) == 0:
		return a.rootHelp(flags)
	case rest[0] == "help":
		if len(rest) == 1 {
			return a.rootHelp(flags)
		}
		return a.helpFor(rest[1:])
	}
	return a.dispatch(rest)
}

// storeChosen looks at the flags that choose a store.
func (a *app) storeChosen(flags *pflag.FlagSet) {
	if isDir(a.store.Config) {
		a.dockerDir, a.store.Config = a.store.Config, ""
	}
	a.chosen = flags.Changed("root") || flags.Changed("run") || flags.Changed("config") && a.store.Config != ""
}

// dispatch builds only the command that is named: flags of forty others cost more than most commands do.
func (a *app) dispatch(args []string) error {
	c, ok := find(commands[:], args[0])
	if !ok && !isCompletion(args[0]) {
		return a.unknownCommand(args[0])
	}
	root := &cobra.Command{Use: a.Name, SilenceErrors: true, SilenceUsage: true, Short: "Containers without a daemon"}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(a.flagError)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { a.commandHelp(c) })
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true})
	if ok {
		root.CompletionOptions.DisableDefaultCmd = true
		root.AddCommand(a.build(c, args[1:]))
	} else {
		a.completing = true
		args = a.completion(args)
		root.Flags().AddFlagSet(a.globalFlags())
		a.completable(root)
		for _, c := range commands {
			root.AddCommand(a.build(c, nil))
		}
	}
	root.SetArgs(args)
	a.Trace.Step("commands built")
	_, err := root.ExecuteContextC(context.Background())
	return err
}

func isCompletion(word string) bool {
	return word == "completion" || strings.HasPrefix(word, cobra.ShellCompRequestCmd)
}

// engine is the client of whoever is asked, chosen at the first call.
func (a *app) engine() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	chosen, err := a.chosenHost()
	if err != nil {
		return nil, err
	}
	o := client.Options{Host: chosen, Version: os.Getenv("DOCKER_API_VERSION"), Warn: a.warn}
	host := a.orServed(chosen)
	dial, call, err := a.dialer(host)
	if err != nil {
		return nil, err
	}
	o.Call = call
	if host == "" {
		o.Version = a.LocalAPI
	}
	a.client = client.New(dial, o)
	return a.client, nil
}

// orServed is host, or the machine's engine if none was chosen and it is served to us; "" is the engine in this process.
func (a *app) orServed(host string) string {
	if host == "" && a.servedToUs() {
		return "unix://" + a.Served
	}
	return host
}

// chosenHost is the engine that somebody named, "" for none: on the command line, then in the environment.
func (a *app) chosenHost() (string, error) {
	switch {
	case a.host != "" && a.context != "":
		return "", errdef.Invalid("conflicting options: cannot specify both --host and --context")
	case a.context != "":
		return a.contextHost(a.context)
	case a.host != "" || a.chosen:
		return a.host, nil
	}
	if host := client.HostFromEnv(); host != "" {
		return host, nil
	}
	return a.contextHost(cmp.Or(os.Getenv("HULL_CONTEXT"), os.Getenv("DOCKER_CONTEXT")))
}

// servedToUs reports whether the machine's engine is served to this user, who is then meant to use it: root works in
// process, and who chose a store means that one. The permissions of the socket say who may.
func (a *app) servedToUs() bool {
	if a.Served == "" || os.Geteuid() == 0 || a.store != (Store{}) {
		return false
	}
	conn, err := net.Dial("unix", a.Served)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (a *app) warn(text string) { a.err.println("WARNING: " + text) }

// dialer is the way to the engine at host, and for the one in this process the shorter one too.
func (a *app) dialer(host string) (client.Dial, client.Call, error) {
	if host != "" {
		dial, err := client.DialHost(host, client.SSH{Command: os.Getenv(remoteVariable), Say: func(line string) { a.err.println(line) }})
		return dial, nil, err
	}
	if a.Local == nil {
		return nil, nil, errdef.Unavailable("this program has no engine in itself; name one with --host")
	}
	return a.Local(a.store)
}

// each calls f for every name, says what fails and goes on; the error it returns only sets the exit status.
func (a *app) each(names []string, f func(name string) error) error {
	failed := false
	for _, name := range names {
		if err := f(name); err != nil {
			a.complain(err)
			failed = true
		}
	}
	if failed {
		return exit(1)
	}
	return nil
}

// eachPrinted is each for commands that print every name that went well.
func (a *app) eachPrinted(names []string, f func(name string) error) error {
	return a.each(names, func(name string) error {
		if err := f(name); err != nil {
			return err
		}
		a.out.println(name)
		return nil
	})
}

// atOnce is how many containers a command works on at the same time.
const atOnce = 16

// together calls f for up to atOnce names at a time, and hands the results to each in the order of the names.
func together(names []string, f func(name string) error) func(name string) error {
	if len(names) == 1 {
		return f
	}
	results := make([]error, len(names))
	done := make([]sync.WaitGroup, len(names))
	slots := make(chan struct{}, atOnce)
	for i, name := range names {
		done[i].Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = f(name)
		})
	}
	next := 0
	return func(string) error {
		i := next
		next++
		done[i].Wait()
		return results[i]
	}
}

// input opens what a command reads: a file, or stdin for "" and "-".
func (a *app) input(name string) (io.ReadCloser, error) {
	if name == "" || name == "-" {
		return io.NopCloser(a.Stdin), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, plainPathError(err))
	}
	return f, nil
}

// plainPathError drops the system call's name, which tells a person nothing.
func plainPathError(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return errors.New(pe.Path + ": " + pe.Err.Error())
	}
	return err
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func isDir(path string) bool {
	if path == "" {
		return false
	}
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
