package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"hull/client"

	"github.com/spf13/cobra"
)

func buildDoctor(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS]"
	cmd.Long = "Tell what this machine and user can and cannot do, and what helps.\n\nThe exit status is 1 if something keeps containers from running as they should."
	cmd.Args = a.arguments(0, 0)
	format := cmd.Flags().StringP("format", "f", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd, *format) }
}

func (a *app) doctor(cmd *cobra.Command, format string) error {
	c, err := a.engine()
	if err != nil {
		return err
	}
	d, err := c.Doctor(cmd.Context())
	if err != nil {
		return err
	}
	if format != "" {
		err = a.printTemplate(format, []any{d})
	} else {
		width, _ := a.out.size()
		text := diagnosisText(d, width)
		if a.out.colours {
			a.out.plain(colourLevels(string(visible([]byte(text)))))
		} else {
			a.out.printf("%s", text)
		}
	}
	if err == nil && !d.Healthy {
		err = exit(1)
	}
	return err
}

// colourLevels makes the level at the beginning of a line green, yellow or red.
func colourLevels(text string) string {
	const normal = "\x1b[0m"
	lines := strings.SplitAfter(text, "\n")
	for i, l := range lines {
		for _, level := range []struct{ word, colour string }{{"ok", "\x1b[32m"}, {"warn", "\x1b[33m"}, {"fail", "\x1b[31m"}} {
			if rest, ok := strings.CutPrefix(l, "  "+level.word+" "); ok {
				lines[i] = "  " + level.colour + level.word + normal + " " + rest
			}
		}
	}
	return strings.Join(lines, "")
}

// The columns of diagnosisText: the level, the name, the sentences.
const (
	nameColumn     = 8
	sentenceColumn = 26
)

// diagnosisText is one line for each check, below it what follows and what helps. Lines are broken at width,
// unless that is 0.
func diagnosisText(d client.Diagnosis, width int) string {
	var b strings.Builder
	group, counts := "", map[string]int{}
	for _, c := range d.Checks {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "%s\n", group)
		}
		counts[c.Level]++
		head := fmt.Sprintf("  %-*s%-*s", nameColumn-2, c.Level, sentenceColumn-nameColumn, c.Name)
		sentence(&b, head, c.Found, width)
		sentence(&b, "", c.Means, width)
		if c.Do != "" {
			sentence(&b, "", "→ "+c.Do, width)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", verdict(d, counts))
	return b.String()
}

func verdict(d client.Diagnosis, counts map[string]int) string {
	who := "root"
	if d.UID != 0 {
		who = fmt.Sprintf("user %d", d.UID)
	}
	where := fmt.Sprintf("%s on Linux %s, store %s", who, d.Kernel, d.Root)
	switch {
	case counts["fail"] > 0:
		return fmt.Sprintf("%s: containers cannot run as they should; %s.", where, plural(counts["fail"], "failure"))
	case counts["warn"] > 0:
		return fmt.Sprintf("%s: containers can run; %s.", where, plural(counts["warn"], "warning"))
	}
	return where + ": containers can run."
}

// sentence writes text in the last column, behind head in its first line.
func sentence(b *strings.Builder, head, text string, width int) {
	if text == "" {
		return
	}
	line := fmt.Sprintf("%-*s", sentenceColumn, head)
	used := sentenceColumn
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case width > sentenceColumn+20 && used+1+n > width:
			line += "\n" + strings.Repeat(" ", sentenceColumn)
			used = sentenceColumn
		default:
			line += " "
			used++
		}
		line += word
		used += n
	}
	fmt.Fprintf(b, "%s\n", line)
}
