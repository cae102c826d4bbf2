package cli

import (
	"fmt"
	"io"

	"hull/client"

	"github.com/spf13/cobra"
)

var configCommands = [...]command{
	{name: "check", short: "Say what is wrong with a file of settings, and what in it has no effect", build: buildConfigCheck},
	{name: "show", short: "Show every setting, and where it comes from", build: buildConfigShow},
}

func buildConfigCheck(a *app, cmd *cobra.Command) {
	cmd.Use += " [FILE|-]"
	cmd.Args = a.arguments(0, 1)
	format := cmd.Flags().String("format", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.configuration(cmd, args)
		if err != nil {
			return err
		}
		if *format != "" {
			err = a.printTemplate(*format, []any{c})
		} else {
			a.configFound(c)
		}
		if err == nil && len(c.Problems) > 0 {
			err = exit(1)
		}
		return err
	}
}

// configuration asks about the file that is named, or about the engine's own.
func (a *app) configuration(cmd *cobra.Command, args []string) (client.Configuration, error) {
	c, err := a.engine()
	if err != nil {
		return client.Configuration{}, err
	}
	if len(args) == 0 {
		return c.Config(cmd.Context())
	}
	in, err := a.input(args[0])
	if err != nil {
		return client.Configuration{}, err
	}
	defer in.Close()
	text, err := io.ReadAll(in)
	if err != nil {
		return client.Configuration{}, plainPathError(err)
	}
	return c.ConfigCheck(cmd.Context(), args[0], string(text))
}

func (a *app) configFound(c client.Configuration) {
	for _, p := range c.Problems {
		a.err.println(p)
	}
	for _, n := range c.Notes {
		a.err.println("note: " + n)
	}
	settled := 0
	for _, s := range c.Settings {
		if s.Line > 0 {
			settled++
		}
	}
	switch {
	case len(c.Problems) > 0:
	case c.Path == "":
		a.out.println("no file of settings: every setting has its default")
	default:
		a.out.printf("%s: %s, nothing wrong\n", c.Path, plural(settled, "setting"))
	}
}

// settingRow is a row of config show.
type settingRow struct {
	s    client.Setting
	path string
}

func (r settingRow) Key() string   { return r.s.Key }
func (r settingRow) Value() string { return r.s.Value }
func (r settingRow) About() string { return r.s.About }

// From is where the value comes from.
func (r settingRow) From() string {
	if r.s.Line == 0 {
		return "default"
	}
	return fmt.Sprintf("%s:%d", r.path, r.s.Line)
}

func buildConfigShow(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	format := cmd.Flags().String("format", "", "Print with a template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'")
	whole := cmd.Flags().Bool("no-trunc", false, "Do not cut what the terminal is too narrow for")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.configuration(cmd, nil)
		if err != nil {
			return err
		}
		if len(c.Problems) > 0 {
			a.configFound(c)
			return exit(1)
		}
		if *format == "json" {
			return a.printTemplate(*format, []any{c})
		}
		rows := make([]any, len(c.Settings))
		for i, s := range c.Settings {
			rows[i] = settingRow{s, c.Path}
		}
		columns := []column{{"Key", "KEY"}, {"Value", "VALUE"}, {"From", "FROM"}}
		headers := map[string]string{"Key": "KEY", "Value": "VALUE", "From": "FROM", "About": "ABOUT"}
		return a.printRows(*format, columns, headers, rows, *whole)
	}
}
