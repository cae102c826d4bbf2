package nft

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// Chain names a chain of somebody else's table.
type Chain struct{ Family, Table, Name string }

func (c Chain) String() string { return c.Family + " " + c.Table + " " + c.Name }

// Foreign is what other tables do to traffic that ours lets pass: a drop anywhere is final.
type Foreign struct {
	// Input are chains that may drop what comes in for the host itself. Where there is one, its owner decides who may
	// speak to the host, published ports included.
	Input []Chain
	// Forward are chains that drop what is forwarded and is not named by their owner.
	Forward []Chain
	// Hooks are chains that the owners of some of Forward keep for others' rules.
	Hooks []Chain
}

// Blocked are the chains of Forward that drop our traffic, hooks or not: those of whose tables no hook is known.
func (f *Foreign) Blocked() []Chain {
	return slices.DeleteFunc(slices.Clone(f.Forward), func(c Chain) bool {
		return slices.ContainsFunc(f.Hooks, func(h Chain) bool { return h.Family == c.Family && h.Table == c.Table })
	})
}

// hooks are the chains that firewalls leave to rules of others, in the order in which they are better: Docker's and
// ufw's.
var hooks = [...]string{"DOCKER-USER", "ufw-user-forward", "ufw6-user-forward"}

// legacyTables lists the tables of the old iptables interface, which nftables does not show.
const legacyTables = "/proc/net/ip_tables_names"

// Foreign looks at the chains of all other tables.
func (t Table) Foreign() (*Foreign, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.CloseLasting()
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	s := &survey{c: c, chains: chains, seen: map[Chain]verdicts{}}
	out := new(Foreign)
	for _, ch := range chains {
		if ch.Hooknum == nil || ch.Type == nftables.ChainTypeNAT || ch.Table.Name == t.Name || !routes(ch.Table.Family) {
			continue
		}
		v := s.base(ch)
		switch {
		case *ch.Hooknum == *nftables.ChainHookInput && v.may:
			out.Input = append(out.Input, chainName(ch))
		case *ch.Hooknum == *nftables.ChainHookForward && v.must:
			out.Forward = append(out.Forward, chainName(ch))
			if h, ok := s.hook(ch.Table); ok && !slices.Contains(out.Hooks, h) {
				out.Hooks = append(out.Hooks, h)
			}
		}
	}
	if b, err := os.ReadFile(legacyTables); err == nil && bytes.Contains(b, []byte("filter")) {
		out.Input = append(out.Input, Chain{"ip", "filter", "INPUT (iptables-legacy)"})
	}
	return out, nil
}

func routes(f nftables.TableFamily) bool {
	return f == nftables.TableFamilyINet || f == nftables.TableFamilyIPv4 || f == nftables.TableFamilyIPv6
}

func chainName(c *nftables.Chain) Chain { return Chain{family(c.Table.Family), c.Table.Name, c.Name} }

func family(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "inet"
}

// survey judges chains by their rules.
type survey struct {
	c      *nftables.Conn
	chains []*nftables.Chain
	seen   map[Chain]verdicts
}

// verdicts of a chain: whether some packet may be dropped, and whether every packet is that nothing before has accepted.
type verdicts struct{ may, must bool }

// base judges a chain with a policy.
func (s *survey) base(c *nftables.Chain) verdicts {
	v := s.chain(c)
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return verdicts{true, true}
	}
	return v
}

func (s *survey) chain(c *nftables.Chain) verdicts {
	name := chainName(c)
	if v, ok := s.seen[name]; ok {
		return v
	}
	s.seen[name] = verdicts{} // nft refuses loops; so do we
	rules, err := s.c.GetRules(c.Table, c)
	if err != nil {
		// A rule that we cannot read may say anything.
		s.seen[name] = verdicts{may: true}
		return s.seen[name]
	}
	var v verdicts
	for _, r := range rules {
		w, conditional := s.rule(c, r)
		v.may = v.may || w.may
		v.must = v.must || w.must && !conditional
	}
	s.seen[name] = v
	return v
}

// rule judges one rule, and says whether it is only about some packets.
func (s *survey) rule(c *nftables.Chain, r *nftables.Rule) (v verdicts, conditional bool) {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Verdict:
			switch e.Kind {
			case expr.VerdictDrop:
				v = verdicts{true, true}
			case expr.VerdictJump, expr.VerdictGoto:
				for _, to := range s.chains {
					if to.Name == e.Chain && to.Table.Name == c.Table.Name && to.Table.Family == c.Table.Family {
						v = s.chain(to)
					}
				}
			}
		case *expr.Reject, *expr.Queue:
			v = verdicts{true, true}
		case *expr.Target:
			if e.Name == "REJECT" || e.Name == "DROP" || e.Name == "NFQUEUE" || e.Name == "TARPIT" {
				v = verdicts{true, true}
			}
		case *expr.Lookup: // also a map of verdicts
			conditional = true
			v.may = v.may || e.IsDestRegSet
		case *expr.Cmp, *expr.Match, *expr.Range, *expr.Limit, *expr.Connlimit:
			conditional = true
		}
	}
	return v, conditional
}

// hook finds the chain of a table where rules of others belong.
func (s *survey) hook(t *nftables.Table) (Chain, bool) {
	for _, name := range hooks {
		for _, c := range s.chains {
			if c.Name == name && c.Table.Name == t.Name && c.Table.Family == t.Family {
				return chainName(c), true
			}
		}
	}
	return Chain{}, false
}

// Admit puts rules at the head of a hook that let the bridges' traffic pass, for our own table to judge, unless they are
// there. They are marked with the table's name. It reports whether there was something to do.
func (t Table) Admit(hook Chain, bridges []string) (changed bool, err error) {
	c, err := dial()
	if err != nil {
		return false, err
	}
	defer c.CloseLasting()
	ch := foreignChain(hook)
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return false, fmt.Errorf("read chain %s: %w", hook, err)
	}
	for _, b := range bridges {
		for _, dir := range []struct {
			key  expr.MetaKey
			word string
		}{{expr.MetaKeyIIFNAME, "from"}, {expr.MetaKeyOIFNAME, "to"}} {
			mark := t.mark(dir.word + " " + b)
			if slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return bytes.Equal(r.UserData, mark) }) {
				continue
			}
			changed = true
			c.InsertRule(&nftables.Rule{Table: ch.Table, Chain: ch, UserData: mark, Exprs: []expr.Any{
				meta(dir.key, 1), equal(name(b)), &expr.Counter{}, verdict(expr.VerdictAccept, ""),
			}})
		}
	}
	if !changed {
		return false, nil
	}
	if err := c.Flush(); err != nil {
		return false, fmt.Errorf("let %s pass in chain %s: %w", strings.Join(bridges, ", "), hook, err)
	}
	return true, nil
}

// Retract removes what Admit put into a hook. A chain that is gone is no error.
func (t Table) Retract(hook Chain) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	ch := foreignChain(hook)
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return nil // with the chain
	}
	prefix := t.mark("")
	prefix = prefix[2 : len(prefix)-1] // without type, length and the end of the text
	for _, r := range rules {
		if len(r.UserData) > 2 && bytes.HasPrefix(r.UserData[2:], prefix) {
			if err := c.DelRule(r); err != nil {
				return err
			}
		}
	}
	return c.Flush()
}

// mark is the comment of a rule of ours among others'.
func (t Table) mark(text string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, t.Name+": "+text)
}

func foreignChain(c Chain) *nftables.Chain {
	f := nftables.TableFamilyINet
	switch c.Family {
	case "ip":
		f = nftables.TableFamilyIPv4
	case "ip6":
		f = nftables.TableFamilyIPv6
	}
	return &nftables.Chain{Name: c.Name, Table: &nftables.Table{Name: c.Table, Family: f}}
}
