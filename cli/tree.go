package cli

import "github.com/spf13/cobra"

// Topics are all of them.
func Topics() []Topic { return topics[:] }

// Tree is every command that help shows, with its flags, for a program that documents them. Run builds only the command
// that is named.
func Tree(p Program) *cobra.Command {
	a := newApp(p)
	root := &cobra.Command{Use: p.Name, Short: "Containers without a daemon"}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true})
	root.Flags().AddFlagSet(a.globalFlags())
	for _, c := range commands {
		if c.group != hiddenGroup {
			root.AddCommand(a.build(c, nil))
		}
	}
	return root
}
