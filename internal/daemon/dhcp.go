package daemon

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"banger/internal/host/dhcp"
	"banger/internal/network"
	"banger/internal/vm"
)

// serveDHCP answers guests that ask for their address, until the returned function is called. Where another program has
// the port, guests have what the agent gave them.
func (d *Daemon) serveDHCP(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { dhcp.Serve(ctx, d.dhcp(ctx)) })
	return func() { cancel(); wg.Wait() }
}

func (d *Daemon) dhcp(ctx context.Context) dhcp.Config {
	every := netip.AddrPortFrom(netip.IPv4Unspecified(), dhcp.Port)
	return dhcp.Config{
		Bridge: func(device string) bool { _, ours := d.tag.MarksBridge(device); return ours },
		Lease:  func(mac net.HardwareAddr) (vm.Lease, string, bool) { return d.leaseOf(ctx, mac) },
		Began: func(bridge string, err error) {
			if err != nil {
				err = refused(err, every)
				d.log.Warn("guests get no answer by DHCP", "bridge", bridge, "error", err)
			}
			d.listeners.note("dhcp", bridge, err)
		},
		Ended:  func(bridge string) { d.listeners.forget("dhcp", bridge) },
		Failed: func(err error) { d.log.Error("follow bridges, for DHCP", "error", err) },
	}
}

// leaseOf finds the lease by the address that a MAC is derived from.
func (d *Daemon) leaseOf(ctx context.Context, mac net.HardwareAddr) (vm.Lease, string, bool) {
	a, ok := network.OfMAC(mac)
	if !ok {
		return vm.Lease{}, "", false
	}
	v, ok, err := d.store.At(ctx, a)
	if err != nil {
		d.log.Error("answer by DHCP", "mac", mac, "error", err)
	}
	return v.Lease, v.Name, ok && v.Lease.MAC == mac.String()
}
