package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"hull/client"
	"hull/ref"

	"github.com/spf13/cobra"
)

var registryCommands = [...]command{
	{name: "serve", short: "Offer the images of this machine as a registry", build: buildRegistryServe},
	{name: "test", short: "Show where an image is asked for, and what answers there", build: buildRegistryTest},
}

var manifestCommands = [...]command{
	{name: "inspect", short: "Show a manifest or index as its registry has it", build: buildManifestInspect},
}

func buildRegistryTest(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS] NAME[:TAG|@DIGEST]"
	cmd.Long = "Show where an image is asked for, and what answers there.\n\nEvery host on the way is asked, in the order a pull asks them. The exit status is 1 if none has the image."
	cmd.Args = a.arguments(1, 1)
	format := cmd.Flags().String("format", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := ref.Parse(args[0])
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		report, err := c.RegistryTest(cmd.Context(), r.String(), a.registryAuth(cmd.Context(), c, r))
		if err != nil {
			return err
		}
		if *format != "" {
			err = a.printTemplate(*format, []any{report})
		} else {
			a.out.printf("%s", reportText(r, report))
		}
		if err == nil && report.Serves == "" {
			err = exit(1)
		}
		return err
	}
}

// reportText is a block for each host, a line for each step.
func reportText(r ref.Ref, report client.RegistryReport) string {
	var b strings.Builder
	name := r.Tagged().String()
	if report.Blocked != "" {
		return fmt.Sprintf("%s is blocked: %s\n", name, report.Blocked)
	}
	fmt.Fprintf(&b, "%s\n", name)
	for i, h := range report.Hosts {
		fmt.Fprintf(&b, "\n%d. %s\n   %s, for %s", i+1, h.URL, h.Why, strings.Join(h.Can, ", "))
		if h.Proxy != "" {
			fmt.Fprintf(&b, ", through %s", h.Proxy)
		}
		b.WriteByte('\n')
		for _, s := range h.Steps {
			word := "ok"
			if !s.OK {
				word = "fail"
			}
			fmt.Fprintf(&b, "   %-5s %-9s %s (%s)\n", word, s.Name, s.Found, s.Took.Round(100*time.Microsecond))
		}
	}
	if report.Serves == "" {
		b.WriteString("\nNone of these serves it.\n")
	} else {
		fmt.Fprintf(&b, "\nA pull is served by %s.\n", report.Serves)
	}
	return b.String()
}

func buildManifestInspect(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS] NAME[:TAG|@DIGEST]"
	cmd.Args = a.arguments(1, 1)
	verbose := cmd.Flags().BoolP("verbose", "v", false, "Show digest, type and size too")
	cmd.Flags().Bool("insecure", false, "Has no effect: the settings say which registries may be insecure")
	cmd.Flags().Lookup("insecure").Hidden = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := ref.Parse(args[0])
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		m, err := c.RegistryManifest(cmd.Context(), r.String(), a.registryAuth(cmd.Context(), c, r))
		if err != nil {
			return err
		}
		doc := m.Manifest
		if *verbose {
			type descriptor struct {
				MediaType string `json:"mediaType"`
				Digest    string `json:"digest"`
				Size      int    `json:"size"`
			}
			if doc, err = json.Marshal(struct {
				Ref        string
				Descriptor descriptor
				Manifest   json.RawMessage
			}{r.Tagged().String(), descriptor{m.MediaType, m.Digest, len(m.Manifest)}, m.Manifest}); err != nil {
				return err
			}
		}
		var out bytes.Buffer
		if err := json.Indent(&out, doc, "", "   "); err != nil {
			return err
		}
		a.out.printf("%s\n", out.String())
		return nil
	}
}
