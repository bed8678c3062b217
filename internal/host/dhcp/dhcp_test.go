package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/netnstest"
	"banger/internal/vm"
)

func dev() vm.Lease {
	return vm.Lease{
		Address: netip.MustParsePrefix("10.9.0.5/22"), Gateway: netip.MustParseAddr("10.9.0.1"),
		MAC: "02:ba:0a:09:00:05", Bridge: "banger-ab12",
	}
}

func leases(mac net.HardwareAddr) (vm.Lease, string, bool) {
	l := dev()
	return l, "dev", mac.String() == l.MAC
}

func mac(t testing.TB, text string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestAnswers says for each request what it gets: type, address, and where that is sent.
func TestAnswers(t *testing.T) {
	s := &server{bridge: "banger-ab12", mtu: 1500, lease: leases}
	ip := func(text string) net.IP { return net.ParseIP(text).To4() }
	kind := func(m dhcpv4.MessageType) dhcpv4.Modifier { return dhcpv4.WithMessageType(m) }
	option := func(o dhcpv4.Option) dhcpv4.Modifier { return dhcpv4.WithOption(o) }
	asks := option(dhcpv4.OptRequestedIPAddress(ip("10.9.0.5")))
	for name, c := range map[string]struct {
		mac  string
		with []dhcpv4.Modifier
		want string
	}{
		"discover":             {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover)}, "OFFER 10.9.0.5 to 10.9.0.5"},
		"discover, deaf":       {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover), dhcpv4.WithBroadcast(true)}, "OFFER 10.9.0.5 to 0.0.0.0"},
		"discover of another":  {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover), option(dhcpv4.OptRequestedIPAddress(ip("10.9.0.9")))}, "OFFER 10.9.0.5 to 10.9.0.5"},
		"request":              {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest), asks}, "ACK 10.9.0.5 to 10.9.0.5"},
		"renewal":              {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(ip("10.9.0.5"))}, "ACK 10.9.0.5 to 10.9.0.5"},
		"request of before":    {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest), option(dhcpv4.OptRequestedIPAddress(ip("10.8.0.5")))}, "NAK 0.0.0.0 to 0.0.0.0"},
		"request of nothing":   {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest)}, "NAK 0.0.0.0 to 0.0.0.0"},
		"request of our offer": {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest), asks, option(dhcpv4.OptServerIdentifier(ip("10.9.0.1")))}, "ACK 10.9.0.5 to 10.9.0.5"},
		"another's offer":      {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeRequest), asks, option(dhcpv4.OptServerIdentifier(ip("10.9.0.77")))}, ""},
		"inform":               {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(ip("10.9.0.5"))}, "ACK 0.0.0.0 to 10.9.0.5"},
		"inform of another":    {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(ip("10.9.0.6"))}, ""},
		"release":              {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeRelease), dhcpv4.WithClientIP(ip("10.9.0.5"))}, ""},
		"decline":              {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeDecline), asks}, ""},
		"no type":              {dev().MAC, nil, ""},
		"a stranger":           {"02:ba:0a:09:00:06", []dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover)}, ""},
		"no Ethernet":          {"02:ba:0a:09:00:05:00:00", []dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover)}, ""},
		"by a relay":           {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(ip("10.9.0.9"))}, ""},
		"a reply":              {dev().MAC, []dhcpv4.Modifier{kind(dhcpv4.MessageTypeOffer), func(d *dhcpv4.DHCPv4) { d.OpCode = dhcpv4.OpcodeBootReply }}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(mac(t, c.mac))}, c.with...)...)
			if err != nil {
				t.Fatal(err)
			}
			reply, to := s.answer(req.ToBytes())
			got := ""
			if reply != nil {
				got = reply.MessageType().String() + " " + reply.YourIPAddr.String() + " to " + to.String()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if reply != nil && (reply.TransactionID != req.TransactionID || reply.ClientHWAddr.String() != c.mac || !reply.ServerIdentifier().Equal(ip("10.9.0.1"))) {
				t.Errorf("got %s", reply.Summary())
			}
		})
	}
	elsewhere := &server{bridge: "banger-ab12-1", mtu: 1500, lease: leases}
	req, err := dhcpv4.NewDiscovery(mac(t, dev().MAC))
	if err != nil {
		t.Fatal(err)
	}
	if reply, _ := elsewhere.answer(req.ToBytes()); reply != nil {
		t.Errorf("on a bridge that it is not on: %s", reply.Summary())
	}
}

// FuzzAnswer holds that nothing which a guest may send is answered but a request of one that has a lease, and with that.
func FuzzAnswer(f *testing.F) {
	s := &server{bridge: "banger-ab12", mtu: 1500, lease: leases}
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform} {
		req, err := dhcpv4.New(dhcpv4.WithHwAddr(mac(f, dev().MAC)), dhcpv4.WithMessageType(kind), dhcpv4.WithClientIP(net.IPv4(10, 9, 0, 5)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(req.ToBytes())
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		reply, to := s.answer(packet)
		if reply == nil {
			return
		}
		text := reply.ToBytes()
		if len(text) > 1472 || reply.ClientHWAddr.String() != dev().MAC || !to.IsUnspecified() && to != dev().Address.Addr() {
			t.Errorf("%d bytes to %s: %s", len(text), to, reply.Summary())
		}
		if !reply.YourIPAddr.IsUnspecified() && !reply.YourIPAddr.Equal(dev().Address.Addr().AsSlice()) {
			t.Errorf("it gives %s", reply.YourIPAddr)
		}
	})
}

// check stops a test that is in a namespace.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
}

// bridged makes a bridge with the lease's gateway, and a guest's device on it.
func bridged(t *testing.T, l vm.Lease) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = l.Bridge
	check(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	bridge, err := netlink.LinkByName(l.Bridge)
	check(t, err)
	check(t, netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: l.Gateway.AsSlice(), Mask: net.CIDRMask(l.Address.Bits(), 32)}}))
	check(t, netlink.LinkSetUp(bridge))
	attrs = netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "guest", mac(t, l.MAC)
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "tap"}))
	for _, name := range []string{"guest", "tap"} {
		device, err := netlink.LinkByName(name)
		check(t, err)
		if name == "tap" {
			check(t, netlink.LinkSetMaster(device, bridge))
		}
		check(t, netlink.LinkSetUp(device))
	}
	return bridge
}

// serving runs Serve in the namespace of the calling test, and returns what it tells.
func serving(t *testing.T) (told chan string, stop func()) {
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	told = make(chan string, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		err := unix.Setns(ns, unix.CLONE_NEWNET)
		if err = errors.Join(err, unix.Close(ns)); err != nil {
			t.Error(err)
			return
		}
		Serve(ctx, Config{
			Bridge: func(device string) bool { return strings.HasPrefix(device, "banger-ab12") },
			Lease:  leases,
			Began: func(bridge string, err error) {
				if err != nil {
					bridge += ": " + err.Error()
				}
				told <- "began " + bridge
			},
			Ended:  func(bridge string) { told <- "ended " + bridge },
			Failed: func(err error) { told <- err.Error() },
		})
	}()
	return told, func() { cancel(); <-done }
}

func tells(t *testing.T, told chan string, want string) {
	t.Helper()
	select {
	case got := <-told:
		if got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("it does not say %q", want)
	}
}

// request asks as a guest does that has no address yet.
func request(t *testing.T) *nclient4.Lease {
	t.Helper()
	client, err := nclient4.New("guest", nclient4.WithTimeout(500*time.Millisecond), nclient4.WithRetry(20))
	check(t, err)
	defer func() { check(t, client.Close()) }()
	l, err := client.Request(t.Context())
	check(t, err)
	return l
}

func TestAGuestIsServed(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		bridge := bridged(t, dev())
		told, stop := serving(t)
		defer stop()
		tells(t, told, "began banger-ab12")
		ack := request(t).ACK
		got := []string{
			ack.YourIPAddr.String(), net.IP(ack.SubnetMask()).String(), ack.Router()[0].String(), ack.DNS()[0].String(), ack.HostName(), ack.DomainName(),
			strings.Join(ack.DomainSearch().Labels, " "), ack.IPAddressLeaseTime(0).String(), ack.ServerIdentifier().String(),
		}
		if d := cmp.Diff([]string{"10.9.0.5", "255.255.252.0", "10.9.0.1", "10.9.0.1", "dev", "vm", "vm", "1h0m0s", "10.9.0.1"}, got); d != "" {
			t.Error(d)
		}
		if mtu := ack.Options.Get(dhcpv4.OptionInterfaceMTU); !slices.Equal(mtu, []byte{1500 >> 8, 1500 & 255}) {
			t.Errorf("MTU %v", mtu)
		}

		// Another bridge comes, and both go, by the daemon's work or anybody's.
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "banger-ab12-1"
		check(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		tells(t, told, "began banger-ab12-1")
		attrs.Name = "br0"
		check(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		check(t, netlink.LinkDel(bridge))
		tells(t, told, "ended banger-ab12")
		guest, err := netlink.LinkByName("guest")
		check(t, err)
		check(t, netlink.LinkDel(guest))
		bridged(t, dev())
		tells(t, told, "began banger-ab12")
		if ack := request(t).ACK; ack.YourIPAddr.String() != "10.9.0.5" {
			t.Errorf("made anew: %s", ack.Summary())
		}
		stop()
		if first, second := <-told, <-told; first == second || !strings.HasPrefix(first, "ended ") || !strings.HasPrefix(second, "ended ") {
			t.Errorf("at the end: %q, %q", first, second)
		}
	})
}

// TestAPortThatAnotherHas keeps nothing but DHCP away, and is said once.
func TestAPortThatAnotherHas(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		other, err := net.ListenPacket("udp4", "0.0.0.0:67")
		check(t, err)
		bridge := bridged(t, dev())
		told, stop := serving(t)
		tells(t, told, "began banger-ab12: listen udp4 0.0.0.0:67: bind: address already in use")
		check(t, netlink.LinkSetDown(bridge))
		check(t, netlink.LinkSetUp(bridge))
		stop()
		tells(t, told, "ended banger-ab12")
		check(t, other.Close())

		told, stop = serving(t)
		tells(t, told, "began banger-ab12")
		if ack := request(t).ACK; ack.YourIPAddr.String() != "10.9.0.5" {
			t.Error(ack.Summary())
		}
		stop()
		tells(t, told, "ended banger-ab12")
	})
}

// TestABridgeThatIsGoneMeanwhile is what a look finds that comes after a lost subscription.
func TestABridgeThatIsGoneMeanwhile(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		bridge := bridged(t, dev())
		var told []string
		s := &servers{all: map[int]*server{}, Config: Config{
			Bridge: func(device string) bool { return device == dev().Bridge }, Lease: leases,
			Began: func(bridge string, err error) { told = append(told, "began "+bridge) },
			Ended: func(bridge string) { told = append(told, "ended "+bridge) },
		}}
		check(t, s.look(t.Context()))
		check(t, s.look(t.Context()))
		check(t, netlink.LinkDel(bridge))
		check(t, s.look(t.Context()))
		if d := cmp.Diff([]string{"began banger-ab12", "ended banger-ab12"}, told); d != "" {
			t.Error(d)
		}
	})
}
