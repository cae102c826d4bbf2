// Command man writes what a shell and man(1) know of hull below a directory, from the command tree:
//
//	go run ./cmd/man DIR     DIR/man/man1/hull-run.1 ...  DIR/man/man7/hull-format.7 ...  DIR/completions/hull.bash ...
//
// Make install puts it in place.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hull/cli"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(dir string) error {
	for path, content := range files() {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// files are all contents by path.
func files() map[string][]byte {
	out := map[string][]byte{}
	root := cli.Tree(cli.Program{Name: "hull"})
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		out["man/man1/"+page(c)+".1"] = manual(root, c)
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(root)
	for _, t := range cli.Topics() {
		out["man/man7/hull-"+t.Name+".7"] = topic(t)
	}
	for shell, script := range map[string]func(*bytes.Buffer) error{
		"hull.bash": func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"_hull":     func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"hull.fish": func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	} {
		var b bytes.Buffer
		if err := script(&b); err != nil {
			panic(err) // a buffer takes everything
		}
		out["completions/"+shell] = b.Bytes()
	}
	return out
}

// page is the name of a command's manual page: hull-container-ls.
func page(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// roff is a manual page being written; see man(7).
type roff struct{ bytes.Buffer }

// escape keeps a text from meaning anything to roff.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func (r *roff) head(name, section, short string) {
	fmt.Fprintf(r, ".TH %s %s \"\" Hull \"Hull Manual\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(escape(name)), section, escape(name), escape(short))
}

func (r *roff) section(title string) { fmt.Fprintf(r, ".SH %s\n", title) }
func (r *roff) text(s string)        { fmt.Fprintf(r, "%s\n", escape(s)) }
func (r *roff) verbatim(s string) {
	fmt.Fprintf(r, ".nf\n%s\n.fi\n", escape(strings.TrimRight(s, "\n")))
}

// item is a term in bold with its explanation.
func (r *roff) item(term, text string) {
	fmt.Fprintf(r, ".TP\n\\fB%s\\fR\n%s\n", escape(term), escape(text))
}

func manual(root, c *cobra.Command) []byte {
	r := new(roff)
	r.head(page(c), "1", c.Short)
	r.section("SYNOPSIS")
	use := c.UseLine()
	if c == root {
		use = "hull [OPTIONS] COMMAND"
	}
	fmt.Fprintf(r, "\\fB%s\\fR\n", escape(use))
	r.section("DESCRIPTION")
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	r.text(long)
	if len(c.Commands()) > 0 {
		r.section("COMMANDS")
		for _, s := range c.Commands() {
			r.item(page(s)+"(1)", s.Short+".")
		}
	}
	if c.Flags().HasAvailableFlags() {
		r.section("OPTIONS")
		c.Flags().VisitAll(r.flag)
	}
	if c.Example != "" {
		r.section("EXAMPLES")
		r.verbatim(c.Example)
	}
	if c == root {
		for _, t := range cli.Topics() {
			r.section(strings.ToUpper(t.Name))
			r.verbatim(t.Text)
		}
	}
	r.section("SEE ALSO")
	r.text(strings.Join(related(c), ", "))
	return r.Bytes()
}

// related are the pages above c, and the topics.
func related(c *cobra.Command) (out []string) {
	for p := c.Parent(); p != nil; p = p.Parent() {
		out = append(out, page(p)+"(1)")
	}
	for _, t := range cli.Topics() {
		out = append(out, "hull-"+t.Name+"(7)")
	}
	return out
}

func (r *roff) flag(f *pflag.Flag) {
	if f.Hidden {
		return
	}
	term := "--" + f.Name
	if f.Shorthand != "" {
		term = "-" + f.Shorthand + ", " + term
	}
	kind, usage := pflag.UnquoteUsage(f)
	if kind != "" {
		term += " " + kind
	}
	switch f.DefValue {
	case "", "false", "0", "0s", "[]", "<nil>":
	default:
		usage += " (default " + f.DefValue + ")"
	}
	r.item(term, usage+".")
}

func topic(t cli.Topic) []byte {
	r := new(roff)
	r.head("hull-"+t.Name, "7", t.Short)
	r.section("DESCRIPTION")
	r.verbatim(t.Text)
	r.section("SEE ALSO")
	r.text("hull(1)")
	return r.Bytes()
}
