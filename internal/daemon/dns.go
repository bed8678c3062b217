package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/dns"
	"banger/internal/host/handover"
	"banger/internal/host/resolver"
	"banger/internal/network"
	"banger/internal/store"
	"banger/internal/vm"
)

// names is the DNS server with its sockets: one on the loopback, for the host's programs, and one on each address of the host
// towards guests.
type names struct {
	server    *dns.Server
	sockets   *handover.Sockets
	listeners *listeners
	log       *slog.Logger

	opening sync.Mutex // held by serveGuests, or two of them open the same address

	mu     sync.Mutex
	stops  []func()
	host   netip.AddrPort      // where it is asked on the loopback; not valid where it is not
	wanted map[netip.Addr]bool // towards guests; true once it listens there
}

const (
	hostPorts = 16 // from the configured one on are tried
	dnsPort   = 53
	dnsRetry  = 30 * time.Second // until an address that another program had is tried again
	dnsDrain  = 2 * time.Second  // what guests wait for longer than that is called off when the daemon ends
)

// serveNames answers for VMs by their names until the returned function is called. A port that another has keeps nobody
// from his VMs.
func (d *Daemon) serveNames(ctx context.Context) (stop func()) {
	n := &names{sockets: d.sockets, listeners: &d.listeners, log: d.log, wanted: map[netip.Addr]bool{}}
	conf := &dns.ResolvConf{Path: "/etc/resolv.conf", Stub: "/run/systemd/resolve/resolv.conf", Own: n.own}
	upstream := &dns.Upstream{Servers: conf.Servers}
	n.server = dns.New(dns.Config{
		Zone: zone{d.store, d.subnet, d.cfg.Network}, Ask: upstream.Ask, Learner: d.gate, Refused: d.refusedName, Log: d.log,
	})
	d.names = n
	n.serveHost(ctx, d.cfg.DNS)
	d.wiring = &wiring{host: resolver.Host{Root: "/", Tag: d.tag}, store: d.store, server: n.asked, log: d.log}
	d.wiring.start(ctx)
	d.subnet.whenThere(func(s network.Space) { n.serveGuests(ctx, s.Gateways()) })
	if all, err := d.store.VMs(ctx); err == nil { // what is wrong with the store others say
		n.serveGuests(ctx, gatewaysOf(all))
	}
	again, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-again.Done():
				return
			case <-time.After(dnsRetry):
				n.serveGuests(again, nil)
			}
		}
	})
	return func() {
		d.wiring.end()
		cancel()
		wg.Wait()
		n.end()
	}
}

// end lets go of the sockets, once what is under way is answered.
func (n *names) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	hurry := time.AfterFunc(dnsDrain, n.server.Close)
	defer hurry.Stop()
	var wg sync.WaitGroup
	for _, stop := range n.stops {
		wg.Go(stop)
	}
	wg.Wait()
	n.server.Close()
	n.stops = nil
}

// asked is where the host's programs ask; not valid where they cannot.
func (n *names) asked() netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.host
}

// own reports whether a resolver is this daemon itself.
func (n *names) own(server netip.AddrPort) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return server == n.host || server.Port() == dnsPort && n.wanted[server.Addr()]
}

// serveHost listens on the loopback: where the build before this one did, else on the first port from the configured one on that is free.
func (n *names) serveHost(ctx context.Context, first netip.AddrPort) {
	const udp, tcp = "dns udp host", "dns tcp host"
	u, t := n.sockets.PacketConn(udp), n.sockets.Listener(tcp)
	if u != nil && t != nil && among(u.LocalAddr(), first) && t.Addr().String() == u.LocalAddr().String() {
		n.serve(u, t, false)
		return
	}
	if u != nil {
		_ = u.Close()
	}
	if t != nil {
		_ = t.Close()
	}
	var failed error
	for i := range uint16(hostPorts) {
		at := netip.AddrPortFrom(first.Addr(), first.Port()+i)
		u, t, err := n.open(ctx, udp, tcp, at)
		if err == nil {
			n.serve(u, t, false)
			return
		}
		failed = errors.Join(failed, err)
		if !errors.Is(err, syscall.EADDRINUSE) || at.Port() == 1<<16-1 {
			break
		}
	}
	err := refused(failed, first)
	n.listeners.note("dns", first.String(), err)
	n.log.Error("VMs have no names on this host", "error", err, "hint", "choose another port in [dns] and restart the daemon")
}

// among reports whether an address is one that serveHost tries.
func among(a net.Addr, first netip.AddrPort) bool {
	at, err := netip.ParseAddrPort(a.String())
	return err == nil && at.Addr() == first.Addr() && at.Port() >= first.Port() && at.Port()-first.Port() < hostPorts
}

// serveGuests listens on addresses of the host towards guests, beside those that failed before. The host may not have them yet, nor all the time: a
// bridge is there while a VM runs.
func (n *names) serveGuests(ctx context.Context, gateways []netip.Addr) {
	n.opening.Lock()
	defer n.opening.Unlock()
	n.mu.Lock()
	for _, a := range gateways {
		if !n.wanted[a] {
			n.wanted[a] = false
		}
	}
	var missing []netip.Addr
	for a, there := range n.wanted {
		if !there {
			missing = append(missing, a)
		}
	}
	n.mu.Unlock()
	for _, a := range missing {
		at := netip.AddrPortFrom(a, dnsPort)
		u, t, err := n.open(ctx, "dns udp "+a.String(), "dns tcp "+a.String(), at)
		switch {
		case err == nil:
			n.serve(u, t, true)
		case errors.Is(err, syscall.EAFNOSUPPORT): // nor has any guest such an address
		default:
			err = refused(err, at)
			n.listeners.note("dns", at.String(), err)
			n.log.Warn("guests have no names", "error", err)
		}
	}
}

// open makes both sockets of an address, or takes over those of the build before this one.
func (n *names) open(ctx context.Context, udp, tcp string, at netip.AddrPort) (u *handover.PacketConn, t *handover.Listener, err error) {
	lc := net.ListenConfig{Control: control}
	if u, err = n.sockets.ListenPacket(ctx, udp, lc, at.String()); err != nil {
		return nil, nil, err
	}
	if t, err = n.sockets.Listen(ctx, tcp, lc, at.String()); err != nil {
		return nil, nil, errors.Join(err, u.Close())
	}
	return u, t, nil
}

// queue is how many bytes of queries wait, at most, while a newer build is executed.
const queue = 4 << 20

// control has a socket take an address that the host does not have, and many queries at once.
func control(network, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		level, option := unix.SOL_IP, unix.IP_FREEBIND
		if strings.HasSuffix(network, "6") {
			level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
		}
		failed = unix.SetsockoptInt(int(fd), level, option, 1)
		if strings.HasPrefix(network, "udp") {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue) // it has some room in any case
		}
	})
	return errors.Join(err, failed)
}

// serve answers on both sockets of an address.
func (n *names) serve(u *handover.PacketConn, t *handover.Listener, guests bool) {
	at := netip.MustParseAddrPort(u.LocalAddr().String())
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stops = append(n.stops, n.server.ServeUDP(u, guests), n.server.ServeTCP(t, guests))
	if guests {
		n.wanted[at.Addr()] = true
	} else {
		n.host = at
	}
	n.listeners.note("dns", at.String(), nil)
	n.log.Info("names are served", "address", at, "guests", guests)
}

// zone is what the DNS server knows of VMs: what is committed of them.
type zone struct {
	store    *store.Store
	subnet   *subnet
	defaults network.Policy
}

// Named implements dns.Zone.
func (z zone) Named(ctx context.Context, name string) (vm.Lease, bool, error) {
	return z.store.Named(ctx, name)
}

// At implements dns.Zone.
func (z zone) At(ctx context.Context, a netip.Addr) (network.Guest, bool, error) {
	v, ok, err := z.store.At(ctx, a)
	return network.GuestOf(v, z.defaults), ok, err
}

// Subnets implements dns.Zone.
func (z zone) Subnets() []netip.Prefix {
	s := z.subnet.now()
	var out []netip.Prefix
	for _, p := range []netip.Prefix{s.Subnet, s.ULA} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}
