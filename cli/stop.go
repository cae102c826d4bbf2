package cli

import (
	"hull/client"

	"github.com/spf13/cobra"
)

func buildStop(a *app, cmd *cobra.Command) {
	o := stopFlags(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.eachPrinted(args, together(args, func(name string) error { return c.ContainerStop(cmd.Context(), name, o(cmd)) }))
	}
}

// stopFlags are shared by stop and restart.
func stopFlags(a *app, cmd *cobra.Command) func(*cobra.Command) client.StopOptions {
	cmd.Use += " [OPTIONS] CONTAINER [CONTAINER...]"
	cmd.Args = a.arguments(1, -1)
	var signal string
	var timeout int
	f := cmd.Flags()
	f.StringVarP(&signal, "signal", "s", "", "Signal to send instead of the container's own")
	f.IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before the container is killed, -1 for ever")
	f.IntVar(&timeout, "time", 0, "Old name of --timeout")
	f.Lookup("time").Hidden = true
	return func(cmd *cobra.Command) client.StopOptions {
		o := client.StopOptions{Signal: signal}
		if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
			o.Timeout = &timeout
		}
		return o
	}
}
