package cli

import (
	"strconv"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func buildRestart(a *app, cmd *cobra.Command) {
	o := stopFlags(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.eachPrinted(args, together(args, func(name string) error { return c.ContainerRestart(cmd.Context(), name, o(cmd)) }))
	}
}

// restartPolicy reads --restart.
func restartPolicy(s string) (container.RestartPolicy, error) {
	name, count, counted := strings.Cut(s, ":")
	p := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	switch {
	case counted && name == "":
		return p, errdef.Invalid("invalid restart policy format: no policy provided before colon")
	case s == "":
		p.Name = container.RestartPolicyDisabled
	}
	if count != "" {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, errdef.Invalid("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	return p, nil
}
