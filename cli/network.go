package cli

import (
	"strconv"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

func buildNetworkCreate(a *app, cmd *cobra.Command) {
	var o network.CreateRequest
	var labels, opts mapFlag
	cmd.Use += " [OPTIONS] NETWORK"
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.StringVarP(&o.Driver, "driver", "d", "bridge", "Driver that makes it")
	f.BoolVar(&o.Internal, "internal", false, "Keep it from the world outside")
	f.Var(&labels, "label", "Set labels")
	f.VarP(&opts, "opt", "o", "Options of the driver")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.Name, o.Labels, o.Options = args[0], labels, opts
		c, err := a.engine()
		if err != nil {
			return err
		}
		id, err := c.NetworkCreate(cmd.Context(), o)
		if err != nil {
			return err
		}
		a.out.println(id)
		return nil
	}
}

func buildNetworkInspect(a *app, cmd *cobra.Command) {
	o := inspectFlags(a, cmd)
	o.kind = "network"
	cmd.Use += " [OPTIONS] NETWORK [NETWORK...]"
}

func buildNetworkLs(a *app, cmd *cobra.Command) {
	var o listing
	var whole bool
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	o.flags(f, "driver=bridge, id=, name=part, scope=local, type=builtin", "ids")
	f.BoolVar(&whole, "no-trunc", false, "Do not shorten ids")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := o.engine(a)
		if err != nil {
			return err
		}
		list, err := c.NetworkList(cmd.Context(), o.filter.f)
		if err != nil {
			return err
		}
		rows := make([]any, len(list))
		for i, n := range list {
			rows[i] = &networkRow{n, whole}
		}
		headers := map[string]string{
			"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
			"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
		}
		return o.print(a, networkColumns[:], headers, rows, func(i int) string { return rows[i].(*networkRow).ID() })
	}
}

var networkColumns = [...]column{{"ID", "NETWORK ID"}, {"Name", "NAME"}, {"Driver", "DRIVER"}, {"Scope", "SCOPE"}}

// networkRow has the fields Docker's templates for lists of networks know.
type networkRow struct {
	n     network.Summary
	whole bool
}

func (*networkRow) isRow() {}

func (r *networkRow) ID() string {
	if r.whole || len(r.n.ID) < 12 {
		return r.n.ID
	}
	return r.n.ID[:12]
}

func (r *networkRow) Name() string             { return r.n.Name }
func (r *networkRow) Driver() string           { return r.n.Driver }
func (r *networkRow) Scope() string            { return r.n.Scope }
func (r *networkRow) IPv4() string             { return strconv.FormatBool(r.n.EnableIPv4) }
func (r *networkRow) IPv6() string             { return strconv.FormatBool(r.n.EnableIPv6) }
func (r *networkRow) Internal() string         { return strconv.FormatBool(r.n.Internal) }
func (r *networkRow) Labels() string           { return labelText(r.n.Labels) }
func (r *networkRow) Label(name string) string { return r.n.Labels[name] }
func (r *networkRow) CreatedAt() string        { return r.n.Created.Format(time.RFC3339) }

func buildNetworkRm(a *app, cmd *cobra.Command) {
	cmd.Use += " NETWORK [NETWORK...]"
	cmd.Args = a.arguments(1, -1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.eachPrinted(args, func(name string) error { return c.NetworkRemove(cmd.Context(), name) })
	}
}
