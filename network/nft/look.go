package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Digest tells the tables of now from those of another time: it is made of the handles of chains and rules, which the
// kernel gives to no other of a table's life. "" when a table is missing.
func (t Table) Digest() (string, error) {
	c, err := dial()
	if err != nil {
		return "", err
	}
	defer c.CloseLasting()
	chains, err := c.ListChains()
	if err != nil {
		return "", fmt.Errorf("list nftables chains: %w", err)
	}
	var out strings.Builder
	tables := 0
	for _, tab := range t.both() {
		var of []*nftables.Chain
		for _, ch := range chains {
			if ch.Table.Name == tab.Name && ch.Table.Family == tab.Family {
				of = append(of, ch)
			}
		}
		if len(of) > 0 {
			tables++
		}
		for _, ch := range of {
			fmt.Fprintf(&out, "%s", ch.Name)
			if ch.Policy != nil && *ch.Policy != nftables.ChainPolicyAccept {
				out.WriteString(" drop")
			}
			rules, err := c.GetRules(tab, ch)
			if err != nil {
				return "", notExist(fmt.Errorf("read chain %s: %w", ch.Name, err))
			}
			for _, r := range rules {
				fmt.Fprintf(&out, " %d", r.Handle)
			}
			out.WriteByte('\n')
		}
	}
	if tables < 2 {
		return "", nil
	}
	return out.String(), nil
}

// Holds reports whether the sets of bridges, subnets and senders are those of r: rules do not change with them.
func (t Table) Holds(r *Rules) (bool, error) {
	c, err := dial()
	if err != nil {
		return false, err
	}
	defer c.CloseLasting()
	b := &builder{c: c, inet: t.inet(), bridge: t.bridge()}
	want := map[string][]nftables.SetElement{}
	b.keep = func(s *nftables.Set, elements []nftables.SetElement) { want[s.Name] = elements }
	b.sets(r)
	for six, elements := range bySet(r.Senders) {
		want[sendersSet(b.bridge, six).Name] = elements
	}
	for _, s := range []*nftables.Set{
		{Table: b.inet, Name: bridgesSet}, {Table: b.inet, Name: insideSet}, {Table: b.inet, Name: subnets4Set}, {Table: b.inet, Name: subnets6Set},
		sendersSet(b.bridge, false), sendersSet(b.bridge, true),
	} {
		have, err := c.GetSetElements(s)
		if err != nil {
			if err = notExist(err); errors.Is(err, unix.ENOENT) {
				return false, nil
			}
			return false, err
		}
		if !sameKeys(have, want[s.Name]) {
			return false, nil
		}
	}
	return true, nil
}

func sameKeys(a, b []nftables.SetElement) bool {
	keys := func(list []nftables.SetElement) []string {
		var out []string
		for _, e := range list {
			out = append(out, string(e.Key))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return slices.Equal(keys(a), keys(b))
}
