package cli

import (
	"errors"
	"fmt"
	"strings"

	"hull/errdef"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// countError is a wrong number of arguments: exit status 1, as with Docker.
func (a *app) countError(cmd *cobra.Command, text string) error {
	return hint(errdef.Invalid("'%s' %s", cmd.CommandPath(), text),
		fmt.Sprintf("\nUsage:  %s\n\nRun '%s --help' for more information", cmd.UseLine(), cmd.CommandPath()))
}

func (a *app) unknownSub(cmd *cobra.Command, word string) error {
	if reason, ok := later(cmd.Name() + " " + word); ok {
		return status(exitEngine, errdef.NotImplemented("%s %s %s", cmd.Name(), word, reason))
	}
	return hint(errdef.Invalid("unknown command: %s %s", cmd.CommandPath(), word),
		fmt.Sprintf("\nRun '%s --help' for more information", cmd.CommandPath()))
}

// flagError tells a flag we refuse from one that does not exist or has a wrong value.
func (a *app) flagError(c *cobra.Command, err error) error {
	var r *refusedError
	if errors.As(err, &r) {
		return status(exitEngine, errdef.As(errdef.ErrNotImplemented, r))
	}
	return a.usageError(c, err)
}

func (a *app) rootHelp(flags *pflag.FlagSet) error {
	w := a.out
	w.printf("Usage:  %s [OPTIONS] COMMAND\n\nContainers without a daemon: Docker's commands, one program, nothing running in between.\n", a.Name)
	a.list("Common Commands", commands[:], common)
	a.list("Management Commands", commands[:], management)
	a.list("Commands", commands[:], ungrouped)
	w.printf("\nTopics:\n")
	for _, t := range topics {
		w.printf("  %-11s %s\n", t.Name, t.Short)
	}
	w.printf("\nGlobal Options:\n%s", a.flagUsages(flags))
	w.printf("\nExit status: the command's own with run, exec and start -a; 125 when %s or the engine failed, 126 when\nthe command cannot be executed, 127 when it was not found, 1 for other failures.\n", a.Name)
	w.printf("\nRun '%s COMMAND --help' for more information on a command, '%s help TOPIC' on a topic.\n", a.Name, a.Name)
	return nil
}

func (a *app) groupHelp(cmd *cobra.Command, c command) {
	a.out.printf("Usage:  %s %s COMMAND\n\n%s\n", a.Name, c.name, c.short)
	a.list("Commands", c.sub, ungrouped)
	a.out.printf("\nRun '%s %s COMMAND --help' for more information on a command.\n", a.Name, c.name)
}

func (a *app) list(title string, list []command, g group) {
	a.out.printf("\n%s:\n", title)
	for _, c := range list {
		if c.group == g {
			a.out.printf("  %-11s %s\n", c.name, c.short)
		}
	}
}

func (a *app) commandHelp(c *cobra.Command) {
	if g, ok := find(commands[:], c.Name()); ok && g.sub != nil && c.Parent() != nil && c.Parent().Parent() == nil {
		a.groupHelp(c, g)
		return
	}
	a.out.printf("Usage:  %s\n\n%s\n", c.UseLine(), orShort(c))
	if alias := aliasesOf(a.Name, c.CommandPath()); alias != "" {
		a.out.printf("\nAliases:\n  %s\n", alias)
	}
	if usages := a.flagUsages(c.Flags()); usages != "" {
		a.out.printf("\nOptions:\n%s", usages)
	}
	if c.Example != "" {
		a.out.printf("\nExamples:\n%s\n", c.Example)
	}
}

func orShort(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return c.Short
}

// aliasesOf names the other ways to the command at path: the short one and the one below a noun.
func aliasesOf(program, path string) string {
	word := strings.TrimPrefix(path, program+" ")
	c, ok := find(commands[:], word)
	if noun, sub, two := strings.Cut(word, " "); two {
		g, found := find(commands[:], noun)
		if !found {
			return ""
		}
		s, found := find(g.sub, sub)
		if !found {
			return ""
		}
		c, ok = s, true
	}
	if !ok {
		return ""
	}
	var all []string
	for _, g := range commands {
		if g.group != management {
			continue
		}
		for _, s := range g.sub {
			if s.short == c.short {
				all = append(all, program+" "+g.name+" "+s.name)
				for _, al := range s.aliases {
					all = append(all, program+" "+g.name+" "+al)
				}
			}
		}
	}
	for _, top := range commands {
		if top.group != management && top.short == c.short {
			all = append(all, program+" "+top.name)
		}
	}
	if len(all) < 2 {
		return ""
	}
	return strings.Join(all, ", ")
}

// flagUsages wraps at the terminal's width, and at Docker's 80 characters elsewhere.
func (a *app) flagUsages(f *pflag.FlagSet) string {
	width, _ := a.out.size()
	if width <= 0 {
		width = 80
	}
	return f.FlagUsagesWrapped(width - 1)
}

// later says what is missing for a command that Docker has and this version has not. The table is looked at only
// when a command was not found.
func later(name string) (string, bool) {
	for _, l := range [...]struct{ why, names string }{
		{"needs a network, which this version does not have yet", "network port container+port"},
		{"needs volumes, which this version does not have yet; -v takes directories", "volume"},
		{"comes with a later version, in hulld", "buildx compose cri"},
		{"is not in this version yet", "commit cp diff export history events prune " +
			"container+commit container+cp container+diff container+export container+prune " +
			"image+history image+prune system+df system+events system+prune context checkpoint plugin trust"},
		{"is not part of Hull: more than one machine is the work of Kubernetes", "swarm node service stack secret config+create config+ls config+rm config+inspect"},
	} {
		for _, n := range strings.Fields(l.names) {
			if strings.ReplaceAll(n, "+", " ") == name {
				return l.why, true
			}
		}
	}
	return "", false
}
