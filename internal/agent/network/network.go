// Package network gives a guest's NIC its addresses.
package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
)

// Configure brings up the loopback and, when there is one, the NIC: as a guest boots.
func Configure(n *agentproto.Network) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback != 0 {
			errs = append(errs, netlink.LinkSetUp(l))
		}
	}
	if n != nil {
		errs = append(errs, boot(links, *n))
	}
	return errors.Join(errs...)
}

func boot(links []netlink.Link, n agentproto.Network) error {
	nic, err := n.Parse()
	if err != nil {
		return err
	}
	for _, l := range links {
		if bytes.Equal(l.Attrs().HardwareAddr, nic.MAC) {
			return set(l, nic)
		}
	}
	return fmt.Errorf("no interface has the address %s", n.MAC)
}

// Change makes the NIC of a guest that runs another one: what it had of addresses and routes is gone.
func Change(n agentproto.Network) error {
	nic, err := n.Parse()
	if err != nil {
		return err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	l, err := device(links)
	if err != nil {
		return err
	}
	return change(l, nic)
}

// device is the guest's only NIC. Its users may have made bridges, tunnels and the like, each of which is of a kind.
func device(links []netlink.Link) (netlink.Link, error) {
	for _, l := range links {
		if _, plain := l.(*netlink.Device); plain && l.Attrs().Flags&net.FlagLoopback == 0 {
			return l, nil
		}
	}
	return nil, errors.New("there is no network device")
}

func change(l netlink.Link, nic agentproto.NIC) error {
	name := l.Attrs().Name
	// Without it the kernel keeps the routes and what IPv6 derived from the old MAC, and some drivers keep the MAC.
	if err := netlink.LinkSetDown(l); err != nil {
		return fmt.Errorf("take down %s: %w", name, err)
	}
	if err := netlink.LinkSetHardwareAddr(l, nic.MAC); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, nic.MAC, err)
	}
	old, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", name, err)
	}
	for _, addr := range old {
		// An address takes those of its subnet along that came after it.
		if err := netlink.AddrDel(l, &addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove the address %s: %w", addr.IPNet, err)
		}
	}
	return set(l, nic)
}

// set gives a NIC its addresses and its default routes. A guest whose kernel has no IPv6, or that has turned it off, goes
// without.
func set(l netlink.Link, nic agentproto.NIC) error {
	if err := setAddress(l, nic.Address, 0); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up %s: %w", l.Attrs().Name, err)
	}
	if err := setRoute(l, nic.Gateway); err != nil || !nic.Address6.IsValid() {
		return err
	}
	// Up before: what has an address of this family while it is down has no route to its subnet. The host sees to it that
	// nobody else has this one, and who finds that out anew takes a second, in which the address cannot be used.
	err := setAddress(l, nic.Address6, unix.IFA_F_NODAD)
	if slices.ContainsFunc([]error{unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.EACCES}, func(without error) bool { return errors.Is(err, without) }) {
		return nil
	}
	if err != nil {
		return err
	}
	return setRoute(l, nic.Gateway6)
}

func setAddress(l netlink.Link, p netip.Prefix, flags int) error {
	addr := &netlink.Addr{Flags: flags, IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if err := netlink.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("set address %s: %w", p, err)
	}
	return nil
}

// setRoute makes the default route of the gateway's family; there is none without a gateway.
func setRoute(l netlink.Link, gateway netip.Addr) error {
	if !gateway.IsValid() {
		return nil
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("set default route by %s: %w", gateway, err)
	}
	return nil
}
