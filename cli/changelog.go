package cli

import (
	"fmt"
	"strings"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildImageChangelog(a *app, cmd *cobra.Command) {
	var failOn []string
	var asJSON bool
	cmd.Use += " [OPTIONS] NAME[:TAG] | IMAGE IMAGE"
	cmd.Long = "Say what changed from the first image to the second, or by the last change of a tag: packages, configuration, files,\n" +
		"and the size of each layer with the step that made it. Packages are those of dpkg, apk, rpm, Go, Python and npm.\n\n" + failOnHelp()
	cmd.Args = a.arguments(1, 2)
	f := cmd.Flags()
	f.StringSliceVar(&failOn, "fail-on", nil, "Fail if one of these is found")
	f.BoolVar(&asJSON, "json", false, "Print everything as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkRules(failOn, ""); err != nil {
			return err
		}
		if len(args) == 1 {
			if strings.HasSuffix(args[0], "}") {
				return errdef.Invalid("the changelog of %s needs a second image to compare it with", args[0])
			}
			args = []string{args[0] + "@{1}", args[0]}
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		l, err := c.ImageChangelog(cmd.Context(), args[0], args[1])
		if err != nil {
			return err
		}
		if asJSON {
			err = printLines(a, []client.Changelog{l})
		} else {
			a.changelog(args, &l)
		}
		if err != nil {
			return err
		}
		return a.failOn(failOn, l.Files.Findings)
	}
}

func (a *app) changelog(names []string, l *client.Changelog) {
	a.out.printf("%s (%s) -> %s (%s): %s, %s\n", names[0], shortID(l.From.ID), names[1], shortID(l.To.ID), size(l.To.Size), signedSize(l.To.Size-l.From.Size))
	if l.From.ID == l.To.ID {
		a.out.println("\nThey are the same image.")
		return
	}
	a.section("Packages", packageTexts(l.Packages))
	var list []string
	for _, s := range l.Config {
		list = append(list, changedSetting(&s))
	}
	a.section("Configuration", list)
	if f := &l.Files; f.Added+f.Changed+f.Deleted > 0 {
		a.section("Files", []string{fmt.Sprintf("%d added, %d changed, %d deleted, %s", f.Added, f.Changed, f.Deleted, signedSize(f.Bytes))})
	}
	list = nil
	for _, s := range l.Layers {
		list = append(list, stepText(&s))
	}
	a.section("Layers", list)
	list = nil
	for _, f := range l.Files.Findings {
		list = append(list, fmt.Sprintf("%-15s %s", f.Rule, f.Text))
	}
	a.section("Worth a look", list)
	for _, n := range l.Notes {
		a.err.println("WARNING: " + onLine(n))
	}
	if l.Files.Unreadable > 0 {
		a.err.println(fmt.Sprintf("WARNING: %s could not be read and count as unchanged", plural(l.Files.Unreadable, "file")))
	}
}

func (a *app) section(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	a.out.println("\n" + title)
	for _, l := range lines {
		a.out.println("  " + onLine(l))
	}
}

// packageTexts say what became of each package; modules of one Go program stand together.
func packageTexts(list []client.PackageChange) []string {
	var out []string
	for _, p := range list {
		line := fmt.Sprintf("%-8s %-6s %s ", p.How, p.Kind, p.Name)
		switch {
		case p.How == "added":
			line += p.New
		case p.How == "removed":
			line += p.Old
		default:
			line += p.Old + " -> " + p.New
		}
		if p.In != "" {
			line += "  (in " + p.In + ")"
		}
		out = append(out, line)
	}
	return out
}

func changedSetting(s *client.SettingChange) string {
	name := s.Field
	if s.Key != "" {
		name += " " + s.Key
	}
	switch {
	case s.Kind == "changed":
		return name + ": " + s.Old + " -> " + s.New
	case s.Kind == "added" && s.New != "":
		return name + ": " + s.New + " (added)"
	case s.Kind == "deleted" && s.Old != "":
		return name + ": " + s.Old + " (removed)"
	case s.Kind == "deleted":
		return name + " (removed)"
	}
	return name + " (added)"
}

func stepText(s *client.LayerStep) string {
	sign := "+"
	if s.Removed {
		sign = "-"
	}
	step := s.Step
	if step == "" {
		step = shortID(s.DiffID)
	}
	return fmt.Sprintf("%s%-8s %s", sign, size(s.Size), strings.Join(strings.Fields(step), " "))
}
