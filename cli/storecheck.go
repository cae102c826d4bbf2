package cli

import "github.com/spf13/cobra"

func buildStoreCheck(a *app, cmd *cobra.Command) {
	var repair bool
	var format string
	cmd.Use += " [OPTIONS]"
	cmd.Long = "Compare everything in the store with what it should be: blobs with their digests, unpacked layers with their\n" +
		"blobs, images, names and definitions with each other. This reads all of it, and takes as long.\n\n" +
		"The exit status is 1 if something is damaged and not repaired."
	cmd.Args = a.arguments(0, 0)
	cmd.Flags().BoolVar(&repair, "repair", false, "Fetch, unpack or write anew what is damaged; what was there is put into quarantine")
	cmd.Flags().StringVar(&format, "format", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(format); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		got, err := c.StoreCheck(cmd.Context(), repair)
		if err != nil {
			return err
		}
		if format != "" {
			err = a.printTemplate(format, []any{got})
		} else {
			for _, d := range got.Damage {
				a.out.printf("%s: %s\n", a.cell(d.Object), a.cell(d.Problem))
				if d.Repaired {
					a.out.println("  repaired")
				} else {
					a.out.println("  " + a.cell(d.Cure))
				}
			}
			if len(got.Damage) == 0 {
				a.out.println("The store is whole.")
			}
		}
		if err == nil && !got.Whole {
			err = exit(1)
		}
		return err
	}
}
