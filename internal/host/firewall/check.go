package firewall

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

// Check tells whether the kernel has all that the tables need: fault.Requirement, with the modules to load, when it has not.
// It makes the tables' rules in tables of another name, and takes them away in the same transaction.
func (f *Firewall) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.try(f.families.sets, f.chains)
	if err == nil {
		if err = flush(nobodys, end{unix.AF_INET, madeIt, netip.IPv4Unspecified()}); err == nil {
			return nil
		}
		return lacking("nf_conntrack_netlink", err)
	}
	if !missing(err) {
		return f.explain("check firewall", f.name, err)
	}
	filter := func(t *nftables.Table, exprs ...expr.Any) []chain {
		return []chain{{f.families.base(t, "forward", nftables.ChainHookForward, 0), [][]expr.Any{exprs}}}
	}
	inet, bridge := f.families.inet, f.families.bridge
	nat := chain{f.families.base(inet, "postrouting", nftables.ChainHookPostrouting, 100), [][]expr.Any{rule(&expr.Masq{})}}
	nat.nft.Type = nftables.ChainTypeNAT
	for _, part := range []struct {
		modules string
		chains  []chain
	}{
		{"nf_tables", filter(inet)},
		{"nf_tables", filter(bridge)},
		{"nf_conntrack nft_ct", filter(inet, replies()...)},
		{"nft_reject_inet", filter(inet, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})},
		{"nft_log nfnetlink_log", filter(inet, log(f.group))},
		{"nft_limit", filter(inet, &expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond})},
		{"nft_chain_nat nft_masq", []chain{nat}},
	} {
		if err := f.try(nil, part.chains); err != nil {
			return lacking(part.modules, err)
		}
	}
	return lacking("nf_tables", err)
}

func nobodys(_, _ netip.Addr) bool { return false }

func lacking(modules string, err error) error {
	return fault.New(fault.Requirement, "the kernel lacks what VMs' networking needs of %s: %w", modules, err).WithOp("check firewall", "").
		WithHint("load it: `sudo modprobe -a %s`; where that fails, the kernel was built without", modules)
}

// try makes tables with these sets and chains, and takes them away before anything sees them.
func (f *Firewall) try(sets []*nftables.Set, chains []chain) error {
	inet, bridge := *f.families.inet, *f.families.bridge
	inet.Name, bridge.Name = f.name+"-check", f.name+"-check"
	moved := map[nftables.TableFamily]*nftables.Table{inet.Family: &inet, bridge.Family: &bridge}
	return f.transact(func(c *nftables.Conn) error {
		for _, t := range moved {
			c.AddTable(t)
		}
		for _, s := range sets {
			s := *s
			s.Table = moved[s.Table.Family]
			if err := c.AddSet(&s, nil); err != nil {
				return fmt.Errorf("set %s: %w", s.Name, err)
			}
		}
		for _, ch := range chains {
			nft := *ch.nft
			nft.Table = moved[nft.Table.Family]
			c.AddChain(&nft)
			for _, exprs := range ch.rules {
				c.AddRule(&nftables.Rule{Table: nft.Table, Chain: &nft, Exprs: exprs})
			}
		}
		for _, t := range moved {
			c.DelTable(t)
		}
		return nil
	})
}

// missing reports whether an error is one of a kernel that has no such thing.
func missing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT)
}
