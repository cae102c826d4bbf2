package cli

import (
	"hull/cli/credentials"

	"github.com/spf13/cobra"
)

func buildLogout(a *app, cmd *cobra.Command) {
	cmd.Use += " [SERVER]"
	cmd.Long = "Forget what is kept for a registry, docker.io unless another is named."
	cmd.Args = a.arguments(0, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		server := ""
		if len(args) > 0 {
			server = args[0]
		}
		server = credentials.Server(server)
		had, err := a.credentials().Erase(cmd.Context(), server)
		if err != nil {
			return err
		}
		name := server
		if server == "docker.io" {
			name = "https://index.docker.io/v1/"
		}
		if !had {
			a.out.println("Not logged in to " + name)
			return nil
		}
		a.out.println("Removing login credentials for " + name)
		return nil
	}
}
