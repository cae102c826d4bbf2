package cli

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

func buildPort(a *app, cmd *cobra.Command) {
	cmd.Use += " CONTAINER [PRIVATE_PORT[/PROTO]]"
	cmd.Args = a.arguments(1, 2)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		info, _, err := c.ContainerInspect(cmd.Context(), args[0], false)
		if err != nil {
			return err
		}
		var ports network.PortMap
		if info.NetworkSettings != nil {
			ports = info.NetworkSettings.Ports
		}
		var lines []string
		if len(args) == 2 {
			lines, err = onePort(ports, args[1], args[0])
		} else {
			lines = allPorts(ports)
		}
		for _, l := range lines {
			fmt.Fprintln(cmd.OutOrStdout(), l)
		}
		return err
	}
}

// onePort is where the container's port word is reached from.
func onePort(ports network.PortMap, word, name string) ([]string, error) {
	number, proto, _ := strings.Cut(word, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return nil, errdef.Invalid("Error: invalid port (%s): want a number up to 65535", number)
	}
	p, _ := network.PortFrom(uint16(n), network.IPProtocol(strings.ToLower(cmp.Or(proto, "tcp"))))
	if len(ports[p]) == 0 {
		return nil, errdef.NotFound("Error: No public port '%s' published for %s", word, name)
	}
	return outside(ports[p], ""), nil
}

func allPorts(ports network.PortMap) []string {
	var lines []string
	for _, p := range slices.SortedFunc(maps.Keys(ports), func(a, b network.Port) int {
		return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
	}) {
		lines = append(lines, outside(ports[p], p.String()+" -> ")...)
	}
	return lines
}

func outside(bindings []network.PortBinding, prefix string) []string {
	bindings = slices.SortedFunc(slices.Values(bindings), func(a, b network.PortBinding) int {
		return cmp.Or(a.HostIP.Compare(b.HostIP), cmp.Compare(len(a.HostPort), len(b.HostPort)), cmp.Compare(a.HostPort, b.HostPort))
	})
	var lines []string
	for _, b := range bindings {
		lines = append(lines, prefix+net.JoinHostPort(addrText(b.HostIP), b.HostPort))
	}
	return lines
}
