package cli

import (
	"fmt"
	"runtime"
	"strings"

	"hull/client"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"
)

func buildVersion(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	format := cmd.Flags().StringP("format", "f", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.showVersion(cmd, *format) }
}

// versions has the fields Docker's templates for version know.
type versions struct {
	Client clientVersion
	Server *system.VersionResponse
}

type clientVersion struct {
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string `json:"DefaultAPIVersion,omitempty"`
	GitCommit         string
	GoVersion         string
	Os, Arch          string
	BuildTime         string `json:",omitempty"`
	Context           string
}

// ServerOK tells a template whether the server answered.
func (v versions) ServerOK() bool { return v.Server != nil }

func (a *app) showVersion(cmd *cobra.Command, format string) error {
	v := versions{Client: clientVersion{
		Version: a.Version, APIVersion: client.Version, DefaultAPIVersion: client.Version, GitCommit: a.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: "default",
	}}
	// Without a server there is still a client to tell about.
	c, failure := a.engine()
	if failure == nil {
		var s system.VersionResponse
		if s, failure = c.ServerVersion(cmd.Context()); failure == nil {
			v.Server = &s
			if api, err := c.APIVersion(cmd.Context()); err == nil {
				v.Client.APIVersion = api
			}
		}
	}
	if format != "" {
		if err := a.printTemplate(format, []any{v}); err != nil {
			return status(exitTemplate, err)
		}
		return failure
	}
	a.out.printf("%s", versionText(v))
	return failure
}

func versionText(v versions) string {
	var b strings.Builder
	c := v.Client
	api := c.APIVersion
	if c.DefaultAPIVersion != api {
		api += " (downgraded from " + c.DefaultAPIVersion + ")"
	}
	fmt.Fprintf(&b, "Client:\n")
	versionLines(&b, " ", "Version:", c.Version, "API version:", api, "Go version:", c.GoVersion,
		"Git commit:", c.GitCommit, "Built:", c.BuildTime, "OS/Arch:", c.Os+"/"+c.Arch, "Context:", c.Context)
	if v.Server == nil {
		return b.String()
	}
	s := v.Server
	fmt.Fprintf(&b, "\nServer: %s\n", s.Platform.Name)
	if len(s.Components) == 0 {
		fmt.Fprint(&b, " Engine:\n")
		versionLines(&b, "  ", "Version:", s.Version, "API version:", minimum(s.APIVersion, s.MinAPIVersion),
			"Go version:", s.GoVersion, "Git commit:", s.GitCommit, "Built:", s.BuildTime, "OS/Arch:", s.Os+"/"+s.Arch)
	}
	for _, p := range s.Components {
		d := p.Details
		fmt.Fprintf(&b, " %s:\n", p.Name)
		if p.Name != "Engine" {
			versionLines(&b, "  ", "Version:", p.Version, "GitCommit:", d["GitCommit"])
			continue
		}
		versionLines(&b, "  ", "Version:", p.Version, "API version:", minimum(d["ApiVersion"], d["MinAPIVersion"]),
			"Go version:", d["GoVersion"], "Git commit:", d["GitCommit"], "Built:", d["BuildTime"],
			"OS/Arch:", d["Os"]+"/"+d["Arch"], "Experimental:", d["Experimental"])
	}
	return b.String()
}

func minimum(api, least string) string {
	if least == "" {
		return api
	}
	return api + " (minimum version " + least + ")"
}

// versionLines prints pairs of name and value; what is not known is left out.
func versionLines(b *strings.Builder, indent string, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(b, "%s%-*s%s\n", indent, 20-len(indent), pairs[i], pairs[i+1])
		}
	}
}
