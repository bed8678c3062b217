package firewall

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/network"
)

// forget ends the kernel's memory of connections that guests made and that their policies do not allow, of those with an
// address that is asked about. The others stay: without that memory a packet from outside would find nobody. f.mu is held.
func (f *Firewall) forget(asked func(netip.Addr) bool) error {
	return flush(func(src, dst netip.Addr) bool {
		g := f.byAddr[src]
		return g != nil && (asked(src) || asked(dst)) && !g.mayReach(dst, f.byAddr[dst])
	})
}

// mayReach is what the rules say of a connection to an address, which may be another guest's.
func (g *guest) mayReach(dst netip.Addr, other *guest) bool {
	if other != nil {
		return other == g || !g.Policy.Isolated && !other.Policy.Isolated
	}
	for _, s := range sides(g.Guest) {
		if s.guest.Is4() != dst.Is4() {
			continue
		}
		if dst == s.gateway {
			return true
		}
		_, learned := g.learned[dst]
		return s.nat && (g.Policy.Egress == network.EgressAll || g.Policy.Egress == network.EgressList && (learned || g.Policy.Allow.HasAddress(dst)))
	}
	return false
}

// matching are the connections to forget, by who made them and who answers.
type matching func(src, dst netip.Addr) bool

// MatchConntrackFlow takes who answers for whom was meant: somebody may have changed the destination on the way.
func (m matching) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return m(addr(flow.Forward.SrcIP), addr(flow.Reverse.SrcIP))
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// flush makes the kernel forget connections. One without connection tracking has nothing to forget.
func flush(match matching) error {
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		for {
			_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, match)
			if errors.Is(err, netlink.ErrDumpInterrupted) {
				continue // what it listed before is gone
			}
			if err != nil {
				return err
			}
			break
		}
	}
	return nil
}
