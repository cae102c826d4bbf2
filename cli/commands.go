package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// command is an entry of the command table: enough to find it and to print the list, not its flags.
type command struct {
	name    string
	aliases []string
	short   string
	group   group
	build   func(*app, *cobra.Command) // adds flags and RunE
	sub     []command                  // of a management command
}

type group uint8

const (
	ungrouped group = iota
	common
	management
	hiddenGroup
)

// commands are the words that may follow hull.
var commands = [...]command{
	{name: "run", short: "Create and run a new container from an image", group: common, build: buildRun},
	{name: "exec", short: "Execute a command in a running container", group: common, build: buildExec},
	{name: "ps", short: "List containers", group: common, build: buildPs},
	{name: "images", short: "List images", group: common, build: buildImages},
	{name: "version", short: "Show the versions of client and engine", group: common, build: buildVersion},
	{name: "info", short: "Show what the engine knows of its host and itself", group: common, build: buildInfo},
	{name: "doctor", short: "Tell what this machine and user can and cannot do, and what helps", group: common, build: buildDoctor},

	{name: "builder", short: "Manage what builds leave behind", group: management, sub: builderCommands[:]},
	{name: "config", short: "Check and show the settings of the engine", group: management, sub: configCommands[:]},
	{name: "container", short: "Manage containers", group: management, sub: containerCommands[:]},
	{name: "image", short: "Manage images", group: management, sub: imageCommands[:]},
	{name: "manifest", short: "Look at manifests of registries", group: management, sub: manifestCommands[:]},
	{name: "registry", short: "Look at the ways to registries, or be one", group: management, sub: registryCommands[:]},
	{name: "system", short: "Manage the engine", group: management, sub: systemCommands[:]},
	{name: "network", short: "Manage networks", group: management, sub: networkCommands[:]},
	{name: "trash", short: "Manage what was removed and can be restored", group: management, sub: trashCommands[:]},
	{name: "volume", short: "Manage volumes", group: management, sub: volumeCommands[:]},

	{name: "attach", short: shortAttach, build: buildAttach},
	{name: "build", short: shortBuild, group: common, build: buildBuild},
	{name: "commit", short: shortCommit, build: buildCommit},
	{name: "cp", short: shortCp, build: buildCp},
	{name: "create", short: shortCreate, build: buildCreate},
	{name: "events", short: shortEvents, build: buildEvents},
	{name: "diff", short: shortDiff, build: buildDiff},
	{name: "export", short: shortExport, build: buildExport},
	{name: "gc", short: shortGC, build: buildGC},
	{name: "history", short: shortHistory, build: buildHistory},
	{name: "import", short: shortImport, build: buildImport},
	{name: "inspect", short: "Show everything known of containers, images, networks and volumes", build: buildInspect},
	{name: "kill", short: shortKill, build: buildKill},
	{name: "load", short: shortLoad, build: buildLoad},
	{name: "login", short: "Log in to a registry", build: buildLogin},
	{name: "logout", short: "Forget what is kept for a registry", build: buildLogout},
	{name: "logs", short: shortLogs, build: buildLogs},
	{name: "pause", short: shortPause, build: buildPause},
	{name: "port", short: shortPort, build: buildPort},
	{name: "pull", short: shortPull, group: common, build: buildPull},
	{name: "push", short: shortPush, group: common, build: buildPush},
	{name: "rename", short: shortRename, build: buildRename},
	{name: "restart", short: shortRestart, build: buildRestart},
	{name: "rm", short: shortRm, build: buildRm},
	{name: "rmi", short: shortRmi, build: buildRmi},
	{name: "save", short: shortSave, build: buildSave},
	{name: "search", short: "Search a registry for images", build: buildSearch},
	{name: "serve", short: "Serve the Docker Engine API to other programs", build: buildServe},
	{name: "start", short: shortStart, build: buildStart},
	{name: "stats", short: shortStats, build: buildStats},
	{name: "stop", short: shortStop, build: buildStop},
	{name: "tag", short: shortTag, build: buildTag},
	{name: "top", short: shortTop, build: buildTop},
	{name: "undo", short: "Bring back what was removed last", build: buildUndo},
	{name: "unpause", short: shortUnpause, build: buildUnpause},
	{name: "untag", short: shortUntag, build: buildUntag},
	{name: "update", short: shortUpdate, build: buildUpdate},
	{name: "wait", short: shortWait, build: buildWait},

	{name: "event", short: "Tell the engine of something that happened", group: hiddenGroup, sub: eventCommands[:]},
}

var containerCommands = [...]command{
	{name: "attach", short: shortAttach, build: buildAttach},
	{name: "commit", short: shortCommit, build: buildCommit},
	{name: "cp", short: shortCp, build: buildCp},
	{name: "create", short: shortCreate, build: buildCreate},
	{name: "diff", short: shortDiff, build: buildDiff},
	{name: "export", short: shortExport, build: buildExport},
	{name: "exec", short: "Execute a command in a running container", build: buildExec},
	{name: "inspect", short: "Show everything known of containers", build: buildContainerInspect},
	{name: "kill", short: shortKill, build: buildKill},
	{name: "logs", short: shortLogs, build: buildLogs},
	{name: "ls", aliases: []string{"list", "ps"}, short: "List containers", build: buildPs},
	{name: "pause", short: shortPause, build: buildPause},
	{name: "port", short: shortPort, build: buildPort},
	{name: "prune", short: "Remove the containers that do not run", build: buildContainerPrune},
	{name: "rename", short: shortRename, build: buildRename},
	{name: "restart", short: shortRestart, build: buildRestart},
	{name: "rm", aliases: []string{"remove"}, short: shortRm, build: buildRm},
	{name: "run", short: "Create and run a new container from an image", build: buildRun},
	{name: "start", short: shortStart, build: buildStart},
	{name: "stats", short: shortStats, build: buildStats},
	{name: "stop", short: shortStop, build: buildStop},
	{name: "top", short: shortTop, build: buildTop},
	{name: "unpause", short: shortUnpause, build: buildUnpause},
	{name: "update", short: shortUpdate, build: buildUpdate},
	{name: "wait", short: shortWait, build: buildWait},
}

var imageCommands = [...]command{
	{name: "build", short: shortBuild, build: buildBuild},
	{name: "changelog", short: "Say what changed from one image to another", build: buildImageChangelog},
	{name: "diff", short: "Show how two images differ", build: buildImageDiff},
	{name: "history", short: shortHistory, build: buildHistory},
	{name: "import", short: shortImport, build: buildImport},
	{name: "inspect", short: "Show everything known of images", build: buildImageInspect},
	{name: "load", short: shortLoad, build: buildLoad},
	{name: "log", short: "Show what a tag has named, and since when", build: buildImageLog},
	{name: "ls", aliases: []string{"list"}, short: "List images", build: buildImages},
	{name: "pin", short: "Keep images whatever becomes of their names", build: buildImagePin},
	{name: "pins", short: "List pinned images", build: buildImagePins},
	{name: "prune", short: "Remove images that no container has", build: buildImagePrune},
	{name: "pull", short: shortPull, build: buildPull},
	{name: "push", short: shortPush, build: buildPush},
	{name: "rm", aliases: []string{"remove"}, short: shortRmi, build: buildRmi},
	{name: "rollback", short: "Let a tag name what it did before", build: buildImageRollback},
	{name: "save", short: shortSave, build: buildSave},
	{name: "tag", short: shortTag, build: buildTag},
	{name: "untag", short: shortUntag, build: buildUntag},
	{name: "unpin", short: "End the pins of images", build: buildImageUnpin},
}

var networkCommands = [...]command{
	{name: "create", short: "Create a network", build: buildNetworkCreate},
	{name: "inspect", short: "Show everything known of networks", build: buildNetworkInspect},
	{name: "ls", aliases: []string{"list"}, short: "List networks", build: buildNetworkLs},
	{name: "rm", aliases: []string{"remove"}, short: "Remove networks", build: buildNetworkRm},
}

var volumeCommands = [...]command{
	{name: "create", short: "Create a volume", build: buildVolumeCreate},
	{name: "inspect", short: "Show everything known of volumes", build: buildVolumeInspect},
	{name: "ls", aliases: []string{"list"}, short: "List volumes", build: buildVolumeLs},
	{name: "prune", short: "Remove volumes that no container has", build: buildVolumePrune},
	{name: "rm", aliases: []string{"remove"}, short: "Remove volumes", build: buildVolumeRm},
}

var builderCommands = [...]command{
	{name: "build", short: shortBuild, build: buildBuild},
	{name: "prune", short: "Remove what builds left for the next ones", build: buildBuilderPrune},
}

var systemCommands = [...]command{
	{name: "check", short: "Compare everything in the store with what it should be, and repair it", build: buildStoreCheck},
	{name: "df", short: "Show what takes up space on the disk", build: buildDf},
	{name: "dial-stdio", short: "Connect stdin and stdout to the engine, for clients over ssh", build: buildDialStdio},
	{name: "gc", short: shortGC, build: buildGC},
	{name: "prune", short: "Remove what is not used", build: buildSystemPrune},
	{name: "events", short: shortEvents, build: buildEvents},
	{name: "info", short: "Show what the engine knows of its host and itself", build: buildInfo},
}

var eventCommands = [...]command{
	{name: "log-relay", short: "Send a log over TLS", build: buildLogRelay},
	{name: "boot", short: "The machine has booted: start what is to run", build: buildEventBoot},
	{name: "exit", short: "A container's process ended", build: buildEventExit},
	{name: "shutdown", short: "The machine goes down: stop every container", build: buildEventShutdown},
}

const (
	shortAttach  = "Connect stdin, stdout and stderr to a running container"
	shortCreate  = "Create a container without starting it"
	shortEvents  = "Show what happens, and what has happened"
	shortCommit  = "Make an image of what a container has written"
	shortCp      = "Copy files between a container and the local file system"
	shortDiff    = "Show how a container's files differ from its image's"
	shortExport  = "Write a container's file system as a tar"
	shortGC      = "Remove images that have not been used for long, to keep to a budget"
	shortHistory = "Show the steps that made an image"
	shortUntag   = "Take names away from an image, which stays"
	shortImport  = "Make an image from the tar of a root file system"
	shortKill    = "Send a signal to running containers"
	shortPull    = "Pull an image from its registry"
	shortPush    = "Push an image to its registry"
	shortLoad    = "Load images from a tar archive or stdin"
	shortLogs    = "Print what a container wrote"
	shortPause   = "Freeze the processes of containers"
	shortPort    = "Show where the ports of a container are published"
	shortRename  = "Give a container another name"
	shortRestart = "Stop and start containers"
	shortRm      = "Remove containers"
	shortRmi     = "Remove images"
	shortSave    = "Write images as an archive that load, docker and podman read"
	shortStart   = "Start stopped containers"
	shortStats   = "Show what containers use, as it changes"
	shortStop    = "Stop running containers"
	shortTag     = "Give an image another name"
	shortTop     = "List the processes of a container"
	shortUnpause = "Let the processes of paused containers go on"
	shortUpdate  = "Change limits of containers, also of running ones"
	shortWait    = "Wait until containers stop and print their exit codes"
)

func find(list []command, word string) (command, bool) {
	for _, c := range list {
		if c.name == word {
			return c, true
		}
		for _, alias := range c.aliases {
			if alias == word {
				return c, true
			}
		}
	}
	return command{}, false
}

// build makes the cobra command of c; args are the words after it.
func (a *app) build(c command, args []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   c.name,
		Aliases:               c.aliases,
		Short:                 c.short,
		Hidden:                c.group == hiddenGroup,
		DisableFlagsInUseLine: true,
	}
	if c.sub != nil {
		a.buildGroup(cmd, c, args)
		return cmd
	}
	c.build(a, cmd)
	cmd.Flags().Bool("help", false, "Print usage") // without cobra's -h, which is --hostname here
	cmd.Flags().Lookup("help").Hidden = true
	if a.completing {
		a.completable(cmd)
	}
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.cmd = cmd
		return run(cmd, args)
	}
	return cmd
}

// buildGroup adds the one subcommand that is named, or all of them for help and completion.
func (a *app) buildGroup(cmd *cobra.Command, c command, args []string) {
	cmd.Use += " COMMAND"
	cmd.Flags().Bool("help", false, "Print usage")
	cmd.Flags().Lookup("help").Hidden = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			a.groupHelp(cmd, c)
			return nil
		}
		return a.unknownSub(cmd, args[0])
	}
	if len(args) > 0 {
		if s, ok := find(c.sub, args[0]); ok {
			cmd.AddCommand(a.build(s, nil))
			return
		}
	}
	if args == nil {
		for _, s := range c.sub {
			cmd.AddCommand(a.build(s, nil))
		}
	}
	cmd.Args = cobra.ArbitraryArgs
}

// arguments checks the number of arguments as Docker does; most is -1 for any number.
func (a *app) arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) >= least && (most < 0 || len(args) <= most):
			return nil
		case most == 0:
			return a.countError(cmd, "accepts no arguments")
		case least == most:
			return a.countError(cmd, "requires "+plural(least, "argument"))
		case len(args) < least:
			return a.countError(cmd, "requires at least "+plural(least, "argument"))
		}
		return a.countError(cmd, "requires at most "+plural(most, "argument"))
	}
}

// refusedFlags are flags Docker knows and Hull does not yet; each says why instead of being unknown.
func refusedFlags(f *pflag.FlagSet, list []refused) {
	for _, r := range list {
		v := f.VarPF(&refusedValue{r}, r.name, r.short, r.why)
		v.Hidden = true
		if r.boolean {
			v.NoOptDefVal = "true"
		}
	}
}

type refused struct {
	name, short string
	boolean     bool
	why         string // completes "--name needs ..."
	harmless    string // a value that asks for nothing
}

type refusedValue struct{ refused }

func (*refusedValue) String() string { return "" }
func (*refusedValue) Type() string   { return "refused" }
func (v *refusedValue) Set(s string) error {
	if s == v.harmless && s != "" {
		return nil
	}
	if v.boolean && s == "false" {
		return nil
	}
	return &refusedError{v.refused}
}

type refusedError struct{ refused }

func (e *refusedError) Error() string { return "--" + e.name + " " + e.why }
