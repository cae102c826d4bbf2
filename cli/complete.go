package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/client"

	"github.com/spf13/cobra"
)

// Shells complete a line by asking `hull __complete WORDS...`, of which the last is the one being typed.

// completeWait bounds how long a person at a prompt waits for names.
const completeWait = 2 * time.Second

// what a word may be.
type what uint8

const (
	anything   what = iota // the shell completes file names
	nothing                // no more words
	containers             // all
	running
	stopped
	paused
	images
	volumes
	objects // containers, images and volumes
	contexts
	removed // what is in the trash
)

// takes says what the words after a command are: the first, and the others.
var takes = [...]struct {
	commands    string
	first, more what
}{
	{"attach exec top", running, anything},
	{"kill pause stop stats wait", running, running},
	{"unpause", paused, paused},
	{"start", stopped, stopped},
	{"rm restart update container+inspect", containers, containers},
	{"logs port diff export rename", containers, nothing},
	{"commit", containers, images},
	{"run create", images, anything},
	{"rmi save image+inspect pin unpin untag", images, images},
	{"tag pull push history image+log rollback", images, nothing},
	{"image+diff changelog", images, images},
	{"images", images, nothing},
	{"inspect", objects, objects},
	{"volume+inspect volume+rm", volumes, volumes},
	{"undo trash+restore trash+empty", removed, removed},
	{"ps version info doctor events container+prune image+prune image+pins volume+prune system+df system+prune trash+ls config+show serve", nothing, nothing},
}

// flagValues are the values of flags that have few.
var flagValues = [...]struct {
	flags  string
	values string
	what   what
}{
	{"network net", "bridge host none", running},
	{"volumes-from", "", containers},
	{"pid ipc", "host private", running},
	{"userns", "host private", nothing},
	{"uts cgroupns", "host private", nothing},
	{"restart", "no always unless-stopped on-failure", nothing},
	{"pull", "always missing never", nothing},
	{"compress", "gzip zstd none", nothing},
	{"log-driver", "json-file local none journald syslog", nothing},
	{"format", "table json", nothing},
	{"signal stop-signal", "HUP INT QUIT KILL USR1 USR2 TERM CONT STOP", nothing},
	{"type", "container image volume", nothing},
	{"attach", "stdin stdout stderr", nothing},
	{"platform", "linux/amd64 linux/arm64", nothing},
	{"context", "", contexts},
	{"on-unhealthy", "none restart stop kill", nothing},
}

// completable adds to a command what a shell that completes asks it for.
func (a *app) completable(cmd *cobra.Command) {
	cmd.ValidArgsFunction = a.completeWord
	for _, f := range flagValues {
		for _, name := range strings.Fields(f.flags) {
			if cmd.Flags().Lookup(name) == nil {
				continue
			}
			_ = cmd.RegisterFlagCompletionFunc(name, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return append(strings.Fields(f.values), a.flagNames(f.what)...), cobra.ShellCompDirectiveNoFileComp
			}) // fails only for a flag that is not there
		}
	}
}

// flagNames are names as flags take them: a running container is one whose namespace is to be joined.
func (a *app) flagNames(kind what) []string {
	names := a.names(kind)
	if kind == running {
		for i := range names {
			names[i] = "container:" + names[i]
		}
	}
	return names
}

// completeWord is one more word behind args, which are names and no flags.
func (a *app) completeWord(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	kind := a.wordOf(cmd, len(args))
	switch kind {
	case anything:
		return nil, cobra.ShellCompDirectiveDefault
	case nothing:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := slices.DeleteFunc(a.names(kind), func(n string) bool { return slices.Contains(args, n) })
	return names, cobra.ShellCompDirectiveNoFileComp
}

// wordOf finds what word n behind cmd is. A command below a noun takes what the short one does.
func (a *app) wordOf(cmd *cobra.Command, n int) what {
	path := strings.ReplaceAll(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" "), " ", "+")
	switch path {
	case "image+rm":
		path = "rmi"
	case "image+ls", "container+ls", "volume+ls":
		return nothing
	}
	for _, name := range []string{path, strings.TrimPrefix(path, "container+"), strings.TrimPrefix(path, "image+")} {
		for _, t := range takes {
			if !slices.Contains(strings.Fields(t.commands), name) {
				continue
			}
			if n == 0 {
				return t.first
			}
			return t.more
		}
	}
	return anything
}

// names asks the engine; who completes is told nothing of what goes wrong.
func (a *app) names(kind what) []string {
	if kind == contexts {
		return a.contextNames()
	}
	c, err := a.engine()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	var out []string
	switch kind {
	case containers, running, stopped, paused, objects:
		out = containerNames(ctx, c, kind)
	}
	switch kind {
	case images, objects:
		out = append(out, imageNames(ctx, c)...)
	}
	switch kind {
	case volumes, objects:
		list, err := c.VolumeList(ctx, nil)
		if err == nil {
			for _, v := range list.Volumes {
				out = append(out, v.Name)
			}
		}
	}
	if kind == removed {
		list, _ := c.TrashList(ctx, nil)
		for _, t := range list {
			out = append(out, strings.Split(t.Name, ", ")...)
		}
	}
	// One a line, to a shell: nothing in a name may end the line or begin a description.
	return slices.DeleteFunc(out, func(n string) bool { return strings.ContainsAny(n, "\t\n") || hidesSomething([]byte(n)) })
}

func containerNames(ctx context.Context, c *client.Client, kind what) (out []string) {
	list, err := c.ContainerList(ctx, client.ListOptions{All: kind != running && kind != paused})
	if err != nil {
		return nil
	}
	for _, s := range list {
		up := s.State == "running" || s.State == "paused"
		if kind == stopped && up || kind == running && s.State != "running" || kind == paused && s.State != "paused" {
			continue
		}
		for _, n := range s.Names {
			if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") { // not the name in another's links
				out = append(out, n)
			}
		}
	}
	return out
}

func imageNames(ctx context.Context, c *client.Client) (out []string) {
	list, err := c.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil
	}
	for _, i := range list {
		for _, t := range i.RepoTags {
			if t != "<none>:<none>" {
				out = append(out, t, strings.TrimSuffix(t, ":latest"))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// contextNames are the contexts of Docker's client.
func (a *app) contextNames() []string {
	out := []string{"default"}
	files, _ := filepath.Glob(filepath.Join(a.dockerConfigDir(), "contexts/meta/*/meta.json"))
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			if name := contextName(b); name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}

// completion gives cobra the words without the flags in front of the command, and takes those flags: a name completed
// behind --host is that host's.
func (a *app) completion(words []string) []string {
	last := len(words) - 1
	if last < 1 {
		return words
	}
	flags := a.globalFlags()
	if err := flags.Parse(words[1:last]); err != nil {
		return words
	}
	a.storeChosen(flags)
	rest := slices.Clone(flags.Args())
	return append(append(words[:1:1], rest...), words[last])
}
