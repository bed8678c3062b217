package daemon

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dnsclient "github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/host/handover"
	"banger/internal/network"
	"banger/internal/op"
	"banger/internal/store"
	"banger/internal/vm"
)

// naming is a daemon that has names to serve, of the VM dev, and its subnet.
func naming(t *testing.T, listen netip.AddrPort) *Daemon {
	t.Helper()
	d := upgradable(t, nil)
	d.cfg = config.Served{DNS: listen}
	d.subnet = &subnet{kept: network.Space{Subnet: netip.MustParsePrefix("10.223.0.0/22")}}
	var err error
	if d.store, err = store.Open(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if d.sockets, err = handover.Take(); err != nil {
		t.Fatal(err)
	}
	v := vm.VM{ID: vm.NewID(), Name: "dev", State: vm.Running}
	if _, err := d.store.Create(t.Context(), v, d.subnet.Pick, func(vm.VM) []vm.Record { return nil }, op.Operation{ID: op.NewID()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// named asks for the address of a name.
func named(t *testing.T, network, server, name string) string {
	t.Helper()
	c := dnsclient.Client{Net: network, Timeout: 20 * time.Second}
	m, _, err := c.ExchangeContext(t.Context(), new(dnsclient.Msg).SetQuestion(name, dnsclient.TypeA), server)
	if err != nil || len(m.Answer) != 1 {
		t.Errorf("%s of %s: %v, %v", name, server, m, err)
		return ""
	}
	return m.Answer[0].(*dnsclient.A).A.String()
}

// alone runs a test in a network of its own, which has nothing but a loopback.
func alone(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlock: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("tests of the network need root: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestNamesOnTheLoopbackAndTowardsGuests(t *testing.T) {
	alone(t)
	d := naming(t, netip.MustParseAddrPort("127.0.0.1:42069"))
	defer d.serveNames(t.Context())()
	for _, network := range []string{"udp", "tcp"} {
		if got := named(t, network, "127.0.0.1:42069", "dev.vm."); got != "10.223.0.2" {
			t.Errorf("by %s it is %s", network, got)
		}
	}

	// The bridge comes after the socket.
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 223, 0, 1), Mask: net.CIDRMask(32, 32)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := named(t, "udp", "10.223.0.1:53", "dev.vm."); got != "10.223.0.2" {
		t.Errorf("towards guests it is %s", got)
	}
	if got := d.listeners.list(); len(got) != 2 || got[0].Address != "10.223.0.1:53" || got[1].Address != "127.0.0.1:42069" || got[0].Error+got[1].Error != "" {
		t.Errorf("it lists %v", got)
	}

	// A second instance has another port, and the same subnet only here: it says who is in its way.
	second := naming(t, netip.MustParseAddrPort("127.0.0.1:42069"))
	defer second.serveNames(t.Context())()
	if got := named(t, "tcp", "127.0.0.1:42070", "dev.vm."); got != "10.223.0.2" {
		t.Errorf("of the second instance it is %s", got)
	}
	got := second.listeners.list()
	if len(got) != 2 || !strings.HasPrefix(got[0].Error, `listen on "10.223.0.1:53": `) || !strings.HasSuffix(got[0].Error, "has that port") || got[1].Address != "127.0.0.1:42070" {
		t.Errorf("it lists %v", got)
	}
}

func TestASubnetThatIsFoundLater(t *testing.T) {
	alone(t)
	d := naming(t, netip.MustParseAddrPort("127.0.0.1:42069"))
	d.subnet = &subnet{store: &noted{}, links: d.links}
	defer d.serveNames(t.Context())()
	if got := d.listeners.list(); len(got) != 2 { // dev has a gateway already
		t.Errorf("it lists %v", got)
	}
	if _, err := d.subnet.Require(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := d.listeners.list(); len(got) != 3 || got[0].Address != "10.223.0.1:53" || got[0].Error != "" {
		t.Errorf("it lists %v", got)
	}
}

// TestGuestsOfASubnetThatWasMoved have names where they always had: they know no other gateway.
func TestGuestsOfASubnetThatWasMoved(t *testing.T) {
	for name, moved := range map[string]*subnet{
		"moved":    {kept: network.Space{Subnet: netip.MustParsePrefix("10.197.0.0/22")}},
		"conflict": {store: &noted{p: netip.MustParsePrefix("10.223.0.0/22")}, links: &hostLinks{[]string{"10.223.0.0/16"}, true}},
	} {
		t.Run(name, func(t *testing.T) {
			alone(t)
			d := naming(t, netip.MustParseAddrPort("127.0.0.1:42069"))
			d.subnet = moved
			defer d.serveNames(t.Context())()
			if got := d.listeners.list(); !slices.ContainsFunc(got, func(l api.Listener) bool { return l.Address == "10.223.0.1:53" && l.Error == "" }) {
				t.Errorf("it lists %v", got)
			}
		})
	}
}

func TestPortsThatAreAllTaken(t *testing.T) {
	alone(t)
	for port := 42069; port < 42069+hostPorts; port++ {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	d := naming(t, netip.MustParseAddrPort("127.0.0.1:42069"))
	defer d.serveNames(t.Context())()
	if got := d.listeners.list(); len(got) != 2 || got[0].Error != "" || !strings.Contains(got[1].Error, "has that port") {
		t.Errorf("it lists %v", got)
	}
}

func TestTwoWhoWantTheSameAddress(t *testing.T) {
	alone(t)
	d := naming(t, netip.MustParseAddrPort("127.0.0.1:42069"))
	defer d.serveNames(t.Context())()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	var gateways []netip.Addr
	for a := netip.MustParseAddr("10.224.0.1"); len(gateways) < 20; a = a.Next() {
		gateways = append(gateways, a)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			runtime.LockOSThread() // and never unlock, as above
			if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
				t.Error(err)
				return
			}
			d.names.serveGuests(t.Context(), gateways)
		})
	}
	both.Wait()
	for _, l := range d.listeners.list() {
		if l.Error != "" {
			t.Errorf("%s: %s", l.Address, l.Error)
		}
	}
}
