package firewall_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/host/firewall"
	"banger/internal/host/sysctl"
	"banger/internal/network"
	"banger/internal/vm"
)

const tag = vm.Tag("ab12")

// place is a network namespace, and the thread that is in it: it ends with the test, and the namespace with it.
type place struct {
	t    *testing.T
	work chan func()
	ns   *os.File
	peer atomic.Value // text: who connected last to what the place echoes
}

func newPlace(t *testing.T) *place {
	p := &place{t: t, work: make(chan func())}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			p.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		failed <- err
		for f := range p.work {
			f()
		}
	}()
	if err := <-failed; err != nil {
		t.Fatalf("make a network namespace (the test needs root): %v", err)
	}
	t.Cleanup(func() { close(p.work); p.ns.Close() })
	p.check(
		up("lo"), set("net/ipv6/conf/all/accept_dad", "0"), set("net/ipv6/conf/default/accept_dad", "0"),
		set("net/ipv4/conf/all/rp_filter", "0"), set("net/ipv4/conf/default/rp_filter", "0"),
	)
	return p
}

// do runs in the place.
func (p *place) do(f func()) {
	done := make(chan struct{})
	p.work <- func() { defer close(done); f() }
	<-done
}

// inside runs on a thread of its own that is in the place.
func (p *place) inside(f func() error) {
	p.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this
		err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		p.t.Error(err)
	}
}

func (p *place) check(steps ...func() error) {
	p.t.Helper()
	p.do(func() {
		for i, step := range steps {
			if err := step(); err != nil {
				p.t.Errorf("step %d: %v", i, err)
			}
		}
	})
}

func set(name, value string) func() error { return func() error { return sysctl.Set(name, value) } }

func on(name string, f func(netlink.Link) error) func() error {
	return func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return f(l)
	}
}

func up(name string) func() error { return on(name, netlink.LinkSetUp) }

func address(name, prefix string) func() error {
	return on(name, func(l netlink.Link) error {
		a, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(l, a)
	})
}

func route(prefix, via string) func() error {
	return func() error {
		_, dst, err := net.ParseCIDR(prefix)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)})
	}
}

func master(name, bridge string) func() error {
	return on(name, func(l netlink.Link) error {
		return on(bridge, func(b netlink.Link) error { return netlink.LinkSetMaster(l, b) })()
	})
}

// wire joins two places.
func wire(from *place, name string, to *place, peer, mac string) {
	from.check(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerHardwareAddr: hw, PeerNamespace: netlink.NsFd(to.ns.Fd())})
	}, up(name))
	to.check(up(peer))
}

// world is a host with a bridge, guests on it, and what is outside. A veth's end is a guest's TAP.
type world struct {
	host, outside *place
	guests        map[string]*place
	fw            *firewall.Firewall
}

const (
	gateway  = "192.0.2.1"
	gateway6 = "2001:db8:1::1"
	other    = "198.51.100.1"  // the host's address on the outside
	server   = "203.0.113.7"   // outside
	server2  = "203.0.113.8"   // outside
	server6  = "2001:db8:f::7" // outside
)

// guest is the n-th one, open to all.
func guest(n byte) network.Guest {
	return network.Guest{
		ID: vm.ID("00000000000" + string('0'+n)), Name: "g" + string('0'+n), TAP: "btab12-0000000" + string('0'+n), Bridge: tag.Bridge(0),
		MAC:     net.HardwareAddr{2, 0, 192, 0, 2, n}.String(),
		Address: netip.AddrFrom4([4]byte{192, 0, 2, 10 + n}), Gateway: netip.MustParseAddr(gateway),
		Address6: netip.MustParseAddr("2001:db8:1::1" + string('0'+n)), Gateway6: netip.MustParseAddr(gateway6),
		Policy: network.Policy{NAT: true, NAT6: true, Egress: network.EgressAll},
	}
}

func newWorld(t *testing.T, guests ...network.Guest) *world {
	w := &world{host: newPlace(t), outside: newPlace(t), guests: map[string]*place{}, fw: firewall.New(tag)}
	br := tag.Bridge(0)
	w.host.check(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = br
		attrs.HardwareAddr = net.HardwareAddr{2, 0xba, 192, 0, 2, 1}
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	}, address(br, gateway+"/24"), address(br, gateway6+"/64"), up(br),
		set("net/ipv4/ip_forward", "1"), set("net/ipv6/conf/all/forwarding", "1"))
	for _, g := range guests {
		w.plug(g)
	}
	wire(w.host, "out", w.outside, "in", "02:00:00:00:0f:01")
	w.host.check(address("out", other+"/24"), address("out", "2001:db8:e::1/64"), route("203.0.113.0/24", "198.51.100.2"), route("2001:db8:f::/64", "2001:db8:e::2"))
	w.outside.check(
		address("in", "198.51.100.2/24"), address("in", "2001:db8:e::2/64"),
		address("lo", server+"/32"), address("lo", server2+"/32"), address("lo", "169.254.169.254/32"), address("lo", server6+"/128"),
		route("192.0.2.0/24", other), // for what other hosts on the host's network can try
	)
	w.host.check(route("169.254.169.254/32", "198.51.100.2"))
	return w
}

// plug makes a guest and its TAP.
func (w *world) plug(g network.Guest) {
	p := newPlace(w.host.t)
	w.guests[g.TAP] = p
	wire(w.host, g.TAP, p, "eth0", g.MAC)
	w.host.check(master(g.TAP, g.Bridge), set("net/ipv6/conf/"+g.TAP+"/disable_ipv6", "1"), on(g.TAP, netlink.LinkSetARPOff))
	p.check(
		address("eth0", g.Address.String()+"/24"), address("eth0", g.Address6.String()+"/64"),
		route("0.0.0.0/0", gateway), route("::/0", gateway6),
	)
}

// netfilter says whether bridged frames come by the rules for what is routed, where the kernel can do that.
func (w *world) netfilter(value string) {
	for _, name := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
		w.host.check(func() error {
			if err := sysctl.Set(name, value); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
	}
}

// at runs a method of the firewall.
func (w *world) at(f func() error) {
	w.host.t.Helper()
	w.host.check(f)
}

func (w *world) put(g network.Guest) {
	w.host.t.Helper()
	w.at(func() error { return w.fw.Put(w.host.t.Context(), g) })
}

func (w *world) rebuild(guests ...network.Guest) {
	w.host.t.Helper()
	w.at(func() error { return w.fw.Rebuild(w.host.t.Context(), guests) })
}

// echo serves TCP and UDP on an address of the place: what comes goes back.
func (p *place) echo(addr string) {
	p.t.Helper()
	p.check(func() error {
		var lc net.ListenConfig
		l, err := lc.Listen(p.t.Context(), "tcp", addr)
		if err != nil {
			return err
		}
		pc, err := lc.ListenPacket(p.t.Context(), "udp", addr)
		if err != nil {
			return err
		}
		p.t.Cleanup(func() { _, _ = l.Close(), pc.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				p.peer.Store(host)
				go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
			}
		}()
		go func() {
			b := make([]byte, 1500)
			for {
				n, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(b[:n], from)
			}
		}()
		return nil
	})
}

// dial connects from the place and has something echoed.
func (p *place) dial(kind, addr string) (conn net.Conn, err error) {
	p.do(func() {
		ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Second)
		defer cancel()
		conn, err = new(net.Dialer).DialContext(ctx, kind, addr)
	})
	if err == nil {
		err = echoed(conn)
	}
	if err != nil && conn != nil {
		conn.Close()
	}
	return conn, err
}

func echoed(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	b := make([]byte, 5)
	_, err := io.ReadFull(conn, b)
	return err
}

func (p *place) reaches(kind string, addrs ...string) {
	p.t.Helper()
	for _, addr := range addrs {
		conn, err := p.dial(kind, addr)
		if err != nil {
			p.t.Errorf("%s: %v", addr, err)
			continue
		}
		conn.Close()
	}
}

// refused holds that a connection is turned away, and at once.
func (p *place) refused(kind string, addrs ...string) {
	p.t.Helper()
	for _, addr := range addrs {
		begun := time.Now()
		conn, err := p.dial(kind, addr)
		switch {
		case err == nil:
			p.t.Errorf("%s: reached", addr)
			conn.Close()
		case !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES):
			p.t.Errorf("%s: %v after %v, was to be refused", addr, err, time.Since(begun))
		case time.Since(begun) > 2*time.Second:
			p.t.Errorf("%s: refused after %v", addr, time.Since(begun))
		}
	}
}
