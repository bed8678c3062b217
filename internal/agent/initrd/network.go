package initrd

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"banger/internal/agentproto"
)

// configureNetwork brings up the loopback and, when there is one, the NIC.
func configureNetwork(n *agentproto.Network) error {
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
		errs = append(errs, configureNIC(links, *n))
	}
	return errors.Join(errs...)
}

func configureNIC(links []netlink.Link, n agentproto.Network) error {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(n.Address)
	if err != nil {
		return fmt.Errorf("address %q: %w", n.Address, err)
	}
	for _, l := range links {
		if !bytes.Equal(l.Attrs().HardwareAddr, mac) {
			continue
		}
		if err := netlink.AddrReplace(l, addr); err != nil {
			return fmt.Errorf("set address %s: %w", n.Address, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring up %s: %w", l.Attrs().Name, err)
		}
		if n.Gateway == "" {
			return nil
		}
		gw := net.ParseIP(n.Gateway)
		if gw == nil {
			return fmt.Errorf("gateway %q is not an address", n.Gateway)
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw}); err != nil {
			return fmt.Errorf("set default route by %s: %w", n.Gateway, err)
		}
		return nil
	}
	return fmt.Errorf("no interface has the address %s", n.MAC)
}
