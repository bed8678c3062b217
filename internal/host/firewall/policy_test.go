package firewall_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/firewall"
	"banger/internal/network"
)

// both runs a test without and with br_netfilter, which has bridged frames judged by the rules for what is routed too.
func both(t *testing.T, test func(t *testing.T, netfilter string)) {
	for name, value := range map[string]string{"bridged": "0", "br_netfilter": "1"} {
		t.Run(name, func(t *testing.T) { test(t, value) })
	}
}

func TestGuestsReachEachOther(t *testing.T) {
	both(t, func(t *testing.T, netfilter string) {
		one, two := guest(1), guest(2)
		w := newWorld(t, one, two)
		w.netfilter(netfilter)
		a, b := w.guests[one.TAP], w.guests[two.TAP]
		a.echo(":7")
		b.echo(":7")
		w.rebuild(one, two)
		a.reaches("tcp", "192.0.2.12:7", "[2001:db8:1::12]:7", "[fe80::c0ff:fe00:202%eth0]:7")
		b.reaches("udp", "192.0.2.11:7")

		for _, p := range []*place{a, b} { // past each other, by the host
			p.check(hairpin)
		}
		a.reaches("tcp", "192.0.2.12:7")
		if !w.bridged(one, two) {
			t.Error("frames do not pass between open guests")
		}

		two.Policy.Isolated = true
		w.put(two)
		a.refused("tcp", "192.0.2.12:7")
		b.refused("tcp", "192.0.2.11:7")
		if w.bridged(one, two) || w.bridged(two, one) {
			t.Error("frames pass to or from an isolated guest")
		}

		two.Policy.Isolated = false
		w.put(two)
		a.reaches("tcp", "192.0.2.12:7")
	})
}

// hairpin has a guest send to others by the gateway.
func hairpin() error {
	return errors.Join(route("192.0.2.11/32", gateway)(), route("192.0.2.12/32", gateway)())
}

// bridged reports whether a frame comes from one guest to another.
func (w *world) bridged(from, to network.Guest) bool {
	t := w.host.t
	t.Helper()
	mac, err := net.ParseMAC(from.MAC)
	if err != nil {
		t.Fatal(err)
	}
	out, in := w.guests[from.TAP].packets(), w.guests[to.TAP].packets()
	all := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	if _, err := unix.Write(out, frame(all, mac, unix.ETH_P_ARP, arp(1, mac, from.Address, to.Address), []byte("mark"))); err != nil {
		t.Error(err)
	}
	w.host.check(func() error { // comes later
		c, err := new(net.Dialer).DialContext(t.Context(), "udp", netip.AddrPortFrom(to.Address, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("last"))
		return err
	})
	passed := false
	b := make([]byte, 2000)
	for {
		n, err := unix.Read(in, b)
		if err != nil {
			t.Errorf("the host's packet did not come: %v", err)
			return passed
		}
		if bytes.HasSuffix(b[:n], []byte("last")) {
			return passed
		}
		passed = passed || bytes.HasSuffix(b[:n], []byte("mark"))
	}
}

func TestTheHostIsClosed(t *testing.T) {
	one, two := guest(1), guest(2)
	w := newWorld(t, one, two)
	a := w.guests[one.TAP]
	for _, port := range []string{"22", "53", "67", "80"} {
		w.host.echo(":" + port)
	}
	w.rebuild(one, two)
	a.reaches("tcp", gateway+":53", "["+gateway6+"]:53")
	a.reaches("udp", gateway+":53", "["+gateway6+"]:53")
	a.refused("tcp", gateway+":22", gateway+":80", gateway+":67", other+":53", other+":22", "["+gateway6+"]:22", "[2001:db8:e::1]:53")
	a.refused("udp", gateway+":22", other+":53")
	a.pings(gateway)
	a.pings(gateway6)

	mac, err := net.ParseMAC(one.MAC)
	if err != nil {
		t.Fatal(err)
	}
	a.do(func() { // a request to renew a lease
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(t.Context(), "udp", gateway+":67"); err != nil {
			return
		}
		defer c.Close()
		err = errors.Join(c.SetDeadline(time.Now().Add(5*time.Second)), func() error {
			request := dhcp(mac)[8:] // the kernel has headers of its own
			if _, err := c.Write(request); err != nil {
				return err
			}
			_, err := c.Read(request)
			return err
		}())
	})
	if err != nil {
		t.Errorf("DHCP: %v", err)
	}

	// The host itself gets to them.
	a.echo(":7")
	w.host.reaches("tcp", "192.0.2.11:7", "[2001:db8:1::11]:7")
	w.host.pings("192.0.2.11")
}

func TestOthersDoNotGetToGuests(t *testing.T) {
	one := guest(1)
	w := newWorld(t, one)
	w.guests[one.TAP].echo(":7")
	w.rebuild(one)
	w.outside.refused("tcp", "192.0.2.11:7")
	w.host.echo(":80")
	w.outside.reaches("tcp", other+":80") // and what is not ours is let alone
}

func TestNAT(t *testing.T) {
	one := guest(1)
	w := newWorld(t, one)
	a := w.guests[one.TAP]
	w.outside.echo(server + ":80")
	w.outside.echo("[" + server6 + "]:80")
	w.rebuild(one)
	a.reaches("tcp", server+":80", "["+server6+"]:80")
	held, err := a.dial("tcp", server+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if got := w.outside.peer.Load(); got != other {
		t.Errorf("the server sees %s", got)
	}

	one.Policy.NAT = false
	w.put(one)
	a.refused("tcp", server+":80")
	a.refused("udp", server+":80")
	a.reaches("tcp", "["+server6+"]:80")
	if err := echoed(held); err == nil {
		t.Error("a connection goes on without NAT")
	}

	one.Policy.NAT, one.Policy.NAT6 = true, false
	w.put(one)
	a.reaches("tcp", server+":80")
	a.refused("tcp", "["+server6+"]:80")
}

// TestAHostThatDoesNotForwardRefuses holds that who does not get out by IPv6 is told so at once, also by a kernel that would
// drop it without a word.
func TestAHostThatDoesNotForwardRefuses(t *testing.T) {
	one := guest(1)
	one.Policy.NAT6 = false
	w := newWorld(t, one)
	w.host.check(set("net/ipv6/conf/all/forwarding", "0"))
	a := w.guests[one.TAP]
	w.outside.echo("[" + server6 + "]:80")
	w.rebuild(one)
	a.refused("tcp", "["+server6+"]:80")
	a.refused("udp", "["+server6+"]:80")
	a.echo(":7")
	w.host.reaches("tcp", "[2001:db8:1::11]:7")
}

// TestNATByHand holds that another process than the daemon can turn it off and on, and that the daemon mends what it did.
func TestNATByHand(t *testing.T) {
	one := guest(1)
	w := newWorld(t, one)
	a := w.guests[one.TAP]
	w.outside.echo(server + ":80")
	w.rebuild(one)
	other := firewall.New(tag)
	set := func(on bool) {
		t.Helper()
		for range 2 {
			w.at(func() error { return other.SetNAT(t.Context(), one.TAP, on) })
		}
	}
	held, err := a.dial("tcp", server+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	set(false)
	a.refused("tcp", server+":80")
	if err := echoed(held); err == nil {
		t.Error("a connection goes on without NAT")
	}
	set(true)
	a.reaches("tcp", server+":80")
	set(false)
	w.at(func() error {
		mended, err := w.fw.Ensure(t.Context())
		if !mended {
			t.Error("not mended")
		}
		return err
	})
	a.reaches("tcp", server+":80")
	w.at(func() error { return other.SetNAT(t.Context(), "btab12-unknown0", false) })
	w.at(func() error {
		if err := other.SetNAT(t.Context(), "btab12-unknown0", true); !fault.Is(err, fault.NotFound) || fault.From(err).Hint == "" {
			t.Errorf("unknown: %v", err)
		}
		return nil
	})
}

func TestMetadataIsClosed(t *testing.T) {
	one := guest(1)
	one.Policy.Egress = network.EgressList
	one.Policy.Allow.Prefixes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	w := newWorld(t, one)
	one.Policy.Allow.Prefixes = append(one.Policy.Allow.Prefixes, netip.MustParsePrefix("::/0"))
	w.outside.echo("169.254.169.254:80")
	w.outside.echo(server + ":80")
	for _, a := range network.Metadata6() {
		w.outside.check(address("lo", a.String()+"/128"))
		w.host.check(route(a.String()+"/128", "2001:db8:e::2"))
		w.outside.echo("[" + a.String() + "]:80")
	}
	w.rebuild(one)
	w.guests[one.TAP].reaches("tcp", server+":80")
	w.guests[one.TAP].refused("tcp", "169.254.169.254:80")
	for _, a := range network.Metadata6() {
		w.host.reaches("tcp", "["+a.String()+"]:80")
		w.guests[one.TAP].refused("tcp", "["+a.String()+"]:80")
	}
}

func TestEgress(t *testing.T) {
	one, two := guest(1), guest(2)
	w := newWorld(t, one, two)
	a, b := w.guests[one.TAP], w.guests[two.TAP]
	for _, addr := range []string{server, server2, "[" + server6 + "]"} {
		w.outside.echo(addr + ":80")
	}
	one.Policy.Egress = network.EgressNone
	w.rebuild(one, two)
	a.refused("tcp", server+":80", "["+server6+"]:80")
	b.reaches("tcp", server+":80")

	one.Policy.Egress = network.EgressList
	one.Policy.Allow = allow("203.0.113.7,203.0.113.0/30,2001:db8:f::/64,www.example.com")
	w.put(one)
	a.reaches("tcp", server+":80", "["+server6+"]:80")
	a.refused("tcp", server2+":80")

	// A wider prefix in place of those that it has.
	one.Policy.Allow = allow("203.0.113.0/24")
	w.put(one)
	a.reaches("tcp", server+":80", server2+":80")
	a.refused("tcp", "["+server6+"]:80")
	held, err := a.dial("tcp", server+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	// What is still allowed goes on, also when the next word is the server's.
	one.Policy.Allow = allow("203.0.113.7")
	w.put(one)
	if err := echoed(held); err != nil {
		t.Errorf("a connection that is allowed: %v", err)
	}
	a.refused("tcp", server2+":80")
	one.Policy.Allow = allow("203.0.113.8")
	w.put(one)
	if err := echoed(held); err == nil {
		t.Error("a connection goes on that is no longer allowed")
	}
}

func TestLearn(t *testing.T) {
	one := guest(1)
	one.Policy.Egress, one.Policy.Allow = network.EgressList, allow("*.example.com,203.0.113.0/30")
	w := newWorld(t, one)
	a := w.guests[one.TAP]
	w.outside.echo(server + ":80")
	w.outside.echo(server2 + ":80")
	w.rebuild(one)
	learn := func(name, addr string, ttl time.Duration) {
		t.Helper()
		w.at(func() error {
			return w.fw.Learn(t.Context(), one.TAP, name, []netip.Addr{netip.MustParseAddr(addr)}, ttl)
		})
	}
	a.refused("tcp", server+":80")
	learn("www.example.com", server, time.Hour)
	a.reaches("tcp", server+":80")
	learn("www.example.org", server2, time.Hour)
	a.refused("tcp", server2+":80")

	// A new time counts, and a shorter one takes nothing away.
	learn("a.example.com", server2, 200*time.Millisecond)
	learn("a.example.com", server2, time.Hour)
	learn("a.example.com", server2, time.Millisecond)
	learn("b.example.com", "203.0.113.9", 200*time.Millisecond)
	for w.elements("learned4") != 2 || len(w.learned(one.TAP)) != 2 { // until the last has expired
		if t.Failed() {
			break
		}
	}
	w.expect(t, one.TAP, map[string]time.Duration{server: time.Hour, server2: time.Hour})

	// Who asks again and again makes no transaction each time.
	before := w.learned(one.TAP)
	for range 3 {
		learn("www.example.com", server, time.Hour)
		learn("a.example.com", server2, time.Hour)
	}
	if now := w.learned(one.TAP); !slices.Equal(now, before) {
		t.Errorf("%v became %v", before, now)
	}

	// Another daemon takes over.
	w.fw = firewall.New(tag)
	w.rebuild(one)
	w.expect(t, one.TAP, map[string]time.Duration{server: time.Hour, server2: time.Hour})
	a.reaches("tcp", server+":80", server2+":80")
	w.rebuild(one)
	a.reaches("tcp", server+":80", server2+":80")

	// NAT goes and comes back.
	one.Policy.NAT = false
	w.put(one)
	a.refused("tcp", server+":80")
	one.Policy.NAT = true
	w.put(one)
	a.reaches("tcp", server+":80")

	// A name goes from the list, and its addresses with it.
	one.Policy.Allow = allow("www.example.com")
	w.put(one)
	a.reaches("tcp", server+":80")
	a.refused("tcp", server2+":80")
	w.expect(t, one.TAP, map[string]time.Duration{server: time.Hour})

	w.at(func() error { return w.fw.Drop(t.Context(), one.TAP) })
	w.put(one)
	a.refused("tcp", server+":80")
	w.expect(t, one.TAP, nil)

	// An address is good for as long as it was said.
	learn("www.example.com", server, 200*time.Millisecond)
	a.reaches("tcp", server+":80")
	for begun := time.Now(); ; {
		conn, err := a.dial("tcp", server+":80")
		if err != nil {
			break
		}
		conn.Close()
		if time.Since(begun) > 5*time.Second {
			t.Error("what was learned does not expire")
			break
		}
	}
}

func TestWhatIsLearnedIsBounded(t *testing.T) {
	one := guest(1)
	one.Policy.Egress, one.Policy.Allow = network.EgressList, allow("example.com")
	w := newWorld(t, one)
	w.rebuild(one)
	a := netip.MustParseAddr("198.18.0.0")
	for i := range 3 {
		var some []netip.Addr
		for range firewall.MaxLearned / 2 {
			a = a.Next()
			some = append(some, a)
		}
		w.at(func() error {
			return w.fw.Learn(t.Context(), one.TAP, "example.com", some, time.Hour+time.Duration(i)*time.Minute)
		})
	}
	if n := w.elements("learned4"); n != firewall.MaxLearned {
		t.Errorf("the kernel has %d", n)
	}
	if all := w.learned(one.TAP); len(all) != firewall.MaxLearned || all[0].Addr != netip.MustParseAddr("198.18.2.1") {
		t.Errorf("%d are left: %v", len(all), all)
	}
}

func TestRefusals(t *testing.T) {
	one, two := guest(1), guest(2)
	one.Policy.Egress = network.EgressNone
	two.Policy.Isolated = true
	w := newWorld(t, one, two)
	w.rebuild(one, two)
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan firewall.Refusal, 100)
	ended := make(chan error)
	go w.host.do(func() {
		// The socket is made in this place, and read there while the place waits: no other step may be in it.
		ended <- w.fw.Refusals(ctx, func(r firewall.Refusal) { heard <- r })
	})
	a := w.guests[one.TAP]
	a.check(hairpin)
	a.until(heard, "udp", server+":81")
	want := firewall.Refusal{VM: one.ID, TAP: one.TAP, Protocol: "tcp"}
	for addr, place := range map[string]firewall.Place{server + ":80": firewall.ToOutside, gateway + ":22": firewall.ToHost, "192.0.2.12:7": firewall.ToGuest} {
		want.Destination, want.Towards = netip.MustParseAddrPort(addr), place
		r := a.until(heard, "tcp", addr)
		if r.Source.Addr() != one.Address || r.Source.Port() == 0 || time.Since(r.At) > time.Minute {
			t.Errorf("%s: %+v", addr, r)
		}
		r.At, r.Source = time.Time{}, netip.AddrPort{}
		if r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// until is refused, and waits for what is told of it.
func (p *place) until(heard <-chan firewall.Refusal, protocol, addr string) firewall.Refusal {
	p.t.Helper()
	late, again := time.After(5*time.Second), time.NewTicker(200*time.Millisecond) // nobody may listen yet
	defer again.Stop()
	p.refused(protocol, addr)
	for {
		select {
		case <-again.C:
			p.refused(protocol, addr)
		case r := <-heard:
			if r.Protocol == protocol && r.Destination.String() == addr {
				return r
			}
		case <-late:
			p.t.Errorf("%s: nothing was told of it", addr)
			return firewall.Refusal{}
		}
	}
}

// expect compares what a guest has learned, by the firewall and by the kernel.
func (w *world) expect(t *testing.T, tap string, want map[string]time.Duration) {
	t.Helper()
	all := w.learned(tap)
	if len(all) != len(want) {
		t.Errorf("learned: %+v", all)
	}
	for _, l := range all {
		if off := want[l.Addr.String()] - time.Until(l.Expires); off < -time.Second || off > 10*time.Second {
			t.Errorf("%s is good for %v", l.Addr, time.Until(l.Expires))
		}
	}
	if n := w.elements("learned4"); n != len(want) {
		t.Errorf("the kernel has learned %d, not %d", n, len(want))
	}
}

func (w *world) learned(tap string) (all []firewall.Learned) {
	w.at(func() (err error) {
		all, err = w.fw.Learned(w.host.t.Context(), tap)
		return err
	})
	return all
}

// elements counts those of a set of the family inet.
func (w *world) elements(set string) (n int) {
	w.at(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		all, err := c.GetSetElements(&nftables.Set{Name: set, Table: &nftables.Table{Name: tag.Bridge(0), Family: nftables.TableFamilyINet}})
		n = len(all)
		return err
	})
	return n
}

func allow(text string) network.Allow {
	a, err := network.ParseAllow(text)
	if err != nil {
		panic(err)
	}
	return a
}

// pings sends an echo request, and waits for the answer.
func (p *place) pings(addr string) {
	p.t.Helper()
	kind, listen, request, protocol := "ip4:icmp", "0.0.0.0", icmp.Type(ipv4.ICMPTypeEcho), 1
	reply := icmp.Type(ipv4.ICMPTypeEchoReply)
	if netip.MustParseAddr(addr).Is6() {
		kind, listen, request, protocol = "ip6:ipv6-icmp", "::", ipv6.ICMPTypeEchoRequest, 58
		reply = ipv6.ICMPTypeEchoReply
	}
	p.check(func() error {
		c, err := icmp.ListenPacket(kind, listen)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		m, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte("hello")}}).Marshal(nil)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(m, &net.IPAddr{IP: net.ParseIP(addr)}); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		b := make([]byte, 1500)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return err
			}
			if m, err := icmp.ParseMessage(protocol, b[:n]); err == nil && m.Type == reply {
				return nil
			}
		}
	})
}
