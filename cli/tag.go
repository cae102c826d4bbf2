package cli

import (
	"strings"

	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildTag(a *app, cmd *cobra.Command) {
	cmd.Use += " SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]"
	cmd.Args = a.arguments(2, 2)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if strings.Contains(args[1], "@") {
			return errdef.Invalid("refusing to create a tag with a digest reference")
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		repo, tag := splitTag(args[1])
		return c.ImageTag(cmd.Context(), args[0], repo, tag)
	}
}
