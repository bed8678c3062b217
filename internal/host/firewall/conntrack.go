package firewall

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/network"
)

// forget ends the kernel's memory of connections of a guest, and of others to it, that the policies do not allow. The others
// stay: without that memory a packet from outside would find nobody. f.mu is held.
func (f *Firewall) forget(g *guest) error {
	return flush(f.forbidden, ends(g)...)
}

// forgetAny does so for all guests.
func (f *Firewall) forgetAny() error {
	return flush(f.forbidden, end{family: unix.AF_INET}, end{family: unix.AF_INET6})
}

// forbidden reports whether a guest made a connection that its policy does not allow. f.mu is held.
func (f *Firewall) forbidden(src, dst netip.Addr) bool {
	g := f.byAddr[src]
	return g != nil && !g.mayReach(dst, f.byAddr[dst])
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

// What is said to the kernel's connection tracking, from its header.
const (
	conntrackGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	conntrackDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	attrTuples      = 1 // of who made it; the next one is of who answers
	attrTupleIP     = 1
	attrSource4     = 1
	attrSource6     = 3
	attrFilter      = 25
	filterTuples    = 1
	filterSource    = 1 << 0
	madeIt, answers = 0, 1
)

// end chooses connections by one of their two ends: all of a family where the address is none.
type end struct {
	family byte
	role   uint16
	addr   netip.Addr
}

// ends are those of a guest.
func ends(g *guest) []end {
	var all []end
	for _, s := range sides(g.Guest) {
		family := byte(unix.AF_INET6)
		if s.guest.Is4() {
			family = unix.AF_INET
		}
		all = append(all, end{family, madeIt, s.guest}, end{family, answers, s.guest})
	}
	return all
}

// flush makes the kernel forget connections with these ends, by who made them and who answers: that is not who was meant where
// somebody changed the destination on the way.
func flush(match func(src, dst netip.Addr) bool, of ...end) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for _, e := range of {
		request, err := e.request()
		if err != nil {
			return err
		}
		all, err := c.Execute(request)
		if err != nil {
			return err
		}
		for _, m := range all {
			if len(m.Data) < 4 || !match(source(m.Data[4:], madeIt), source(m.Data[4:], answers)) {
				continue
			}
			_, err := c.Execute(netlink.Message{
				Header: netlink.Header{Type: conntrackDelete, Flags: netlink.Request | netlink.Acknowledge},
				Data:   m.Data, // names it by all that there is of it
			})
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	return nil
}

// request asks for a list. A kernel before Linux 5.8 gives all of the family.
func (e end) request() (netlink.Message, error) {
	m := netlink.Message{
		Header: netlink.Header{Type: conntrackGet, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{e.family, 0, 0, 0},
	}
	if !e.addr.IsValid() {
		return m, nil
	}
	kind := uint16(attrSource6)
	if e.addr.Is4() {
		kind = attrSource4
	}
	ae := netlink.NewAttributeEncoder()
	ae.Nested(attrTuples+e.role, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(attrTupleIP, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(kind, e.addr.AsSlice())
			return nil
		})
		return nil
	})
	ae.Nested(attrFilter, func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(filterTuples+e.role, binary.NativeEndian.AppendUint32(nil, filterSource))
		return nil
	})
	attrs, err := ae.Encode()
	m.Data = append(m.Data, attrs...)
	return m, err
}

// source reads from a connection's attributes where the packets of one of its two directions come from.
func source(attrs []byte, role uint16) netip.Addr {
	var a netip.Addr
	ad, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return a
	}
	for ad.Next() {
		if ad.Type() != attrTuples+role {
			continue
		}
		ad.Nested(func(tuple *netlink.AttributeDecoder) error {
			for tuple.Next() {
				if tuple.Type() != attrTupleIP {
					continue
				}
				tuple.Nested(func(ip *netlink.AttributeDecoder) error {
					for ip.Next() {
						if ip.Type() == attrSource4 || ip.Type() == attrSource6 {
							a, _ = netip.AddrFromSlice(ip.Bytes())
						}
					}
					return nil
				})
			}
			return nil
		})
	}
	return a
}
