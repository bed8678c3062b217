package link

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/network"
)

// Route asks the kernel how it would send a packet of the host's own to an address.
func (*Links) Route(to netip.Addr) network.Route {
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		if err == nil {
			err = unix.ENETUNREACH
		}
		return network.Route{Err: err.Error()}
	}
	r := routes[0]
	out := network.Route{Local: r.Type == unix.RTN_LOCAL}
	if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
		out.Device = l.Attrs().Name
	}
	if a, ok := netip.AddrFromSlice(r.Gw); ok {
		out.Gateway = a.Unmap()
	}
	if a, ok := netip.AddrFromSlice(r.Src); ok {
		out.Source = a.Unmap()
	}
	return out
}
