package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// buildDialStdio is the other end of --host ssh://, for clients of Docker's too: one connection to the engine, whose bytes are
// stdin and stdout.
func buildDialStdio(a *app, cmd *cobra.Command) {
	cmd.Args = a.arguments(0, 0)
	cmd.Hidden = true // ssh types it, no person
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		host, err := a.chosenHost()
		if err != nil {
			return err
		}
		dial, _, err := a.dialer(a.orServed(host))
		if err != nil {
			return err
		}
		conn, err := dial(cmd.Context())
		if err != nil {
			return err
		}
		defer conn.Close()
		go func() { // ends with stdin or the process: a read from a pipe cannot be interrupted
			_, _ = io.Copy(conn, a.Stdin)
			if half, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		}()
		_, err = io.Copy(a.Stdout, conn)
		return err
	}
}
