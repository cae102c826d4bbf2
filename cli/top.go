package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func buildTop(a *app, cmd *cobra.Command) {
	cmd.Use += " CONTAINER [ps OPTIONS]"
	cmd.Args = a.arguments(1, -1)
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		top, err := c.ContainerTop(cmd.Context(), args[0], strings.Join(args[1:], " "))
		if err != nil {
			return err
		}
		var text strings.Builder
		for _, row := range append([][]string{top.Titles}, top.Processes...) {
			cells := make([]string, len(row))
			for i, v := range row {
				cells[i] = a.cell(v)
			}
			text.WriteString(strings.Join(cells, "\t") + "\n")
		}
		return a.printTabs([]byte(text.String()))
	}
}
