package cli

import (
	"fmt"
	"slices"
	"strings"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

// exitFinding is the status of a comparison that found what --fail-on names.
const exitFinding = 3

// rules are what --fail-on takes, each with what it means.
var rules = [...]struct{ name, about string }{
	{"setuid", "a file is now setuid or setgid"},
	{"capabilities", "a file now has capabilities, or others"},
	{"world-writable", "a file or directory may now be written to by everybody"},
	{"device", "there is a new device"},
	{"root-user", "the new image runs as root, whether or not the old one did"},
	{"ports", "a port is exposed that was not"},
	{"command", "the entrypoint or the command is another one"},
	{"downgrade", "a package is older than it was (changelog only)"},
}

// failOnHelp is the part of the help that diff and changelog share.
func failOnHelp() string {
	var b strings.Builder
	b.WriteString("The exit status is 3 if something was found that --fail-on names:\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "  %-15s %s\n", r.name, r.about)
	}
	return strings.TrimRight(b.String(), "\n")
}

// checkRules refuses a rule that would never be found.
func checkRules(names []string, but string) error {
	for _, n := range names {
		if n == but {
			return errdef.Invalid("--fail-on %s needs a changelog: hull image changelog", n)
		}
		known := false
		for _, r := range rules {
			known = known || r.name == n
		}
		if !known {
			return errdef.Invalid("unknown rule %q for --fail-on: hull image diff --help lists them", n)
		}
	}
	return nil
}

// failOn prints the findings that names ask for and sets the exit status.
func (a *app) failOn(names []string, findings []client.Finding) error {
	found := false
	for _, f := range findings {
		if slices.Contains(names, f.Rule) {
			a.err.println(a.Name + ": " + f.Rule + ": " + onLine(f.Text))
			found = true
		}
	}
	if found {
		return exit(exitFinding)
	}
	return nil
}

func buildImageDiff(a *app, cmd *cobra.Command) {
	var o diffOptions
	cmd.Use += " [OPTIONS] IMAGE IMAGE"
	cmd.Long = "Show how the second image differs from the first: in its configuration and in its files. Times of files do not count.\n\n" + failOnHelp()
	cmd.Args = a.arguments(2, 2)
	f := cmd.Flags()
	f.StringVar(&o.content, "content", "", "Show the difference of one text file instead")
	f.StringSliceVar(&o.failOn, "fail-on", nil, "Fail if one of these is found")
	f.BoolVar(&o.json, "json", false, "Print one line of JSON for the images, each file, and the end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkRules(o.failOn, "downgrade"); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		if o.content != "" {
			text, err := c.ImageContent(cmd.Context(), args[0], args[1], o.content)
			if err == nil {
				a.printDiff(text)
			}
			return err
		}
		return a.imageDiff(cmd, c, args, &o)
	}
}

type diffOptions struct {
	content string
	failOn  []string
	json    bool
}

func (a *app) imageDiff(cmd *cobra.Command, c *client.Client, args []string, o *diffOptions) error {
	head := func(d client.ImageDiff) error {
		for _, s := range d.Config {
			a.out.println(onLine(settingText(&s)))
		}
		return nil
	}
	file := func(f client.FileChange) error {
		a.out.println(onLine(fileText(&f)))
		return nil
	}
	if o.json {
		head = func(d client.ImageDiff) error { return printLines(a, []any{struct{ Head client.ImageDiff }{d}}) }
		file = func(f client.FileChange) error { return printLines(a, []any{struct{ File client.FileChange }{f}}) }
	}
	end, err := c.ImageDiff(cmd.Context(), args[0], args[1], head, file)
	if err != nil {
		return err
	}
	if o.json {
		err = printLines(a, []any{struct{ End client.ImageDiffEnd }{end}})
	} else {
		a.out.printf("%s added, %d changed, %d deleted, %s\n", plural(end.Added, "file"), end.Changed, end.Deleted, signedSize(end.Bytes))
	}
	if end.Unreadable > 0 {
		a.err.println(fmt.Sprintf("WARNING: %s could not be read and count as unchanged", plural(end.Unreadable, "file")))
	}
	if err != nil {
		return err
	}
	return a.failOn(o.failOn, end.Findings)
}

// letter is what stands before a line: as in hull diff.
func letter(kind string) string {
	switch kind {
	case "added":
		return "A"
	case "deleted":
		return "D"
	}
	return "C"
}

func settingText(s *client.SettingChange) string {
	name := s.Field
	if s.Key != "" {
		name += " " + s.Key
	}
	switch s.Kind {
	case "added":
		return "A config  " + strings.TrimRight(name+": "+s.New, ": ")
	case "deleted":
		return "D config  " + strings.TrimRight(name+": "+s.Old, ": ")
	}
	return "C config  " + name + ": " + s.Old + " -> " + s.New
}

func fileText(f *client.FileChange) string {
	e := f.New
	if e == nil {
		e = f.Old
	}
	bytes := ""
	if e.Type == "file" {
		bytes = size(e.Size)
	}
	line := fmt.Sprintf("%s %s %9s %8s  %s", letter(f.Kind), modeText(e), ownerText(e), bytes, f.Path)
	if e.Target != "" {
		line += " -> " + e.Target
	}
	if why := whatText(f); why != "" {
		line += "  (" + why + ")"
	}
	return line
}

// whatText says in which ways a file changed, with what it was.
func whatText(f *client.FileChange) string {
	var parts []string
	for _, w := range f.What {
		switch w {
		case "type":
			w = "was a " + f.Old.Type
		case "mode":
			w = fmt.Sprintf("mode was %04o", f.Old.Mode)
		case "owner":
			w = "owner was " + ownerText(f.Old)
		case "target":
			w = "was -> " + f.Old.Target
		case "content":
			if n := f.New.Size - f.Old.Size; n != 0 {
				w += " " + signedSize(n)
			}
		case "xattr":
			w = "attributes"
		}
		parts = append(parts, w)
	}
	return strings.Join(parts, ", ")
}

func ownerText(e *client.FileEntry) string {
	if e.UID < 0 {
		return "-"
	}
	return fmt.Sprintf("%d:%d", e.UID, e.GID)
}

// modeText is the type and the permissions as ls -l has them.
func modeText(e *client.FileEntry) string {
	b := []byte("-rwxrwxrwx")
	switch e.Type {
	case "directory":
		b[0] = 'd'
	case "symlink":
		b[0] = 'l'
	case "chardevice":
		b[0] = 'c'
	case "device":
		b[0] = 'b'
	case "fifo":
		b[0] = 'p'
	case "socket":
		b[0] = 's'
	}
	for i := range 9 {
		if e.Mode&(1<<(8-i)) == 0 {
			b[1+i] = '-'
		}
	}
	for i, special := range []struct {
		bit       uint32
		with, sub byte
	}{{0o4000, 's', 'S'}, {0o2000, 's', 'S'}, {0o1000, 't', 'T'}} {
		if at := 3 + 3*i; e.Mode&special.bit != 0 {
			if b[at] == '-' {
				b[at] = special.sub
			} else {
				b[at] = special.with
			}
		}
	}
	return string(b)
}

// printDiff prints a unified difference, in colour where there are any.
func (a *app) printDiff(text string) {
	if !a.out.colours {
		a.out.printf("%s", text)
		return
	}
	for line := range strings.Lines(text) {
		colour := ""
		switch line[0] {
		case '+':
			colour = "\x1b[32m"
		case '-':
			colour = "\x1b[31m"
		case '@':
			colour = "\x1b[36m"
		}
		if colour == "" {
			a.out.printf("%s", line)
			continue
		}
		a.out.plain(colour)
		a.out.printf("%s", strings.TrimSuffix(line, "\n"))
		a.out.plain("\x1b[m\n")
	}
}
