package cli

import (
	"errors"
	"fmt"
	"strings"

	"hull/client"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"
)

func buildInfo(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	format := cmd.Flags().StringP("format", "f", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.info(cmd, *format) }
}

// infos has the fields Docker's templates for info know: the server's, and ClientInfo.
type infos struct {
	*system.Info `json:",omitempty"`
	ServerErrors []string `json:",omitempty"`
	ClientInfo   *infoClient
}

type infoClient struct {
	Debug   bool
	Version string
	Context string
	Plugins []string
}

func (a *app) info(cmd *cobra.Command, format string) error {
	i := infos{ClientInfo: &infoClient{Debug: a.debug, Version: a.Version, Context: "default", Plugins: []string{}}}
	c, failure := a.engine()
	if failure == nil {
		var s system.Info
		if s, failure = c.Info(cmd.Context()); failure == nil {
			i.Info = &s
		}
	}
	if failure != nil {
		i.ServerErrors = []string{failure.Error()}
	}
	if format != "" {
		if i.Info == nil {
			i.Info = new(system.Info) // a template's fields exist, and are empty
		}
		return errors.Join(a.printTemplate(format, []any{i}), failure)
	}
	a.out.printf("Client:\n Version:    %s\n Context:    %s\n Debug Mode: %v\n", a.Version, "default", a.debug)
	if failure != nil {
		return failure
	}
	a.out.printf("\nServer:\n%s", infoText(*i.Info))
	if conf, err := c.Config(cmd.Context()); err == nil && len(conf.Problems) == 0 { // another engine than Hull has none
		a.out.printf(" Configuration: %s\n", configText(conf))
	}
	for _, w := range i.Warnings {
		a.err.println(w)
	}
	return nil
}

// configText says which settings are not as they are by default, and where.
func configText(c client.Configuration) string {
	var set []string
	for _, s := range c.Settings {
		if s.Line > 0 {
			set = append(set, fmt.Sprintf("%s (line %d)", s.Key, s.Line))
		}
	}
	switch {
	case c.Path == "":
		return "all defaults"
	case len(set) == 0:
		return c.Path + ", all defaults"
	}
	return c.Path + ": " + strings.Join(set, ", ")
}

func infoText(s system.Info) string {
	var b strings.Builder
	line := func(indent int, name string, value any) {
		if v := fmt.Sprint(value); v != "" {
			fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat(" ", indent), name, v)
		}
	}
	line(1, "Containers", s.Containers)
	line(2, "Running", s.ContainersRunning)
	line(2, "Paused", s.ContainersPaused)
	line(2, "Stopped", s.ContainersStopped)
	line(1, "Images", s.Images)
	line(1, "Server Version", s.ServerVersion)
	line(1, "Storage Driver", s.Driver)
	for _, p := range s.DriverStatus {
		line(2, p[0], p[1])
	}
	line(1, "Logging Driver", s.LoggingDriver)
	line(1, "Cgroup Driver", s.CgroupDriver)
	line(1, "Cgroup Version", s.CgroupVersion)
	if p := s.Plugins; len(p.Volume)+len(p.Network)+len(p.Log) > 0 {
		fmt.Fprintf(&b, " Plugins:\n")
		line(2, "Volume", strings.Join(p.Volume, " "))
		line(2, "Network", strings.Join(p.Network, " "))
		line(2, "Log", strings.Join(p.Log, " "))
	}
	if len(s.Runtimes) > 0 {
		names := sortedKeys(s.Runtimes)
		for i, n := range names {
			if s.Runtimes[n].Status["hull.unusable"] != "" {
				names[i] += " (not here: see hull doctor)"
			}
		}
		line(1, "Runtimes", strings.Join(names, " "))
	}
	line(1, "Default Runtime", s.DefaultRuntime)
	line(1, "Init Binary", s.InitBinary)
	line(1, "containerd version", s.ContainerdCommit.ID)
	line(1, "runc version", s.RuncCommit.ID)
	securityText(&b, s.SecurityOptions)
	line(1, "Kernel Version", s.KernelVersion)
	line(1, "Operating System", s.OperatingSystem)
	line(1, "OSType", s.OSType)
	line(1, "Architecture", s.Architecture)
	line(1, "CPUs", s.NCPU)
	line(1, "Total Memory", units.BytesSize(float64(s.MemTotal)))
	line(1, "Name", s.Name)
	line(1, "ID", s.ID)
	line(1, "Root Dir", s.DockerRootDir)
	line(1, "Debug Mode", s.Debug)
	line(1, "HTTP Proxy", s.HTTPProxy)
	line(1, "HTTPS Proxy", s.HTTPSProxy)
	line(1, "No Proxy", s.NoProxy)
	if len(s.Labels) > 0 {
		fmt.Fprintf(&b, " Labels:\n  %s\n", strings.Join(s.Labels, "\n  "))
	}
	line(1, "Experimental", s.ExperimentalBuild)
	line(1, "Live Restore Enabled", s.LiveRestoreEnabled)
	return b.String()
}

// securityText shows options of the form name=seccomp,profile=builtin, a name to a line and what belongs to it below.
func securityText(b *strings.Builder, options []string) {
	if len(options) == 0 {
		return
	}
	fmt.Fprintf(b, " Security Options:\n")
	for _, o := range options {
		for _, kv := range strings.Split(o, ",") {
			k, v, ok := strings.Cut(kv, "=")
			switch {
			case !ok:
				fmt.Fprintf(b, "  %s\n", k)
			case k == "name":
				fmt.Fprintf(b, "  %s\n", v)
			default:
				fmt.Fprintf(b, "   %s: %s\n", strings.ToUpper(k[:min(1, len(k))])+k[min(1, len(k)):], v)
			}
		}
	}
}
