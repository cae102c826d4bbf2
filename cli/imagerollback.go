package cli

import (
	"time"

	"hull/client"

	"github.com/spf13/cobra"
)

func buildImageRollback(a *app, cmd *cobra.Command) {
	var dry, asJSON bool
	cmd.Use += " [OPTIONS] NAME[:TAG] [@{N}|@{TIME}|IMAGE_ID]"
	cmd.Long = "Let a tag name what it did before. Without a destination that is the version before the last change that was not\n" +
		"itself rolled back, so that a second rollback goes one version further back; @{1} is always what the tag named before\n" +
		"its last change, so it takes a rollback back. Needs no network, and is itself an entry of the log."
	cmd.Args = a.arguments(1, 2)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "Change nothing, and say what would be changed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print the change as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		to := ""
		if len(args) == 2 {
			to = args[1]
		}
		r, err := c.ImageRollback(cmd.Context(), args[0], to, dry)
		if err != nil {
			return err
		}
		if asJSON {
			return printLines(a, []client.ImageRollback{r})
		}
		a.out.println(rollbackText(&r, dry, time.Now()))
		return nil
	}
}

func rollbackText(r *client.ImageRollback, dry bool, now time.Time) string {
	if r.AlreadyThere {
		return r.Ref + " is " + shortID(r.To) + " already"
	}
	from := shortID(r.From)
	if from == "" {
		from = "nothing"
	}
	verb := "rolled back from "
	if dry {
		verb = "would be rolled back from "
	}
	return r.Ref + ": " + verb + from + " to " + shortID(r.To) + " (" + r.Place + ", from " + ago(r.Since, now) + ")"
}
