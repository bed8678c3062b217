package firewall_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The host looks for no neighbour that is no guest: whoever has it look for many keeps it from finding others.
func TestTheHostLooksForNobody(t *testing.T) {
	one, two := guest(1), guest(2)
	w := newWorld(t, one, two)
	a := w.guests[one.TAP]
	w.host.echo(":53")
	w.rebuild(one, two)
	mac, err := net.ParseMAC(one.MAC)
	if err != nil {
		t.Fatal(err)
	}
	host := net.HardwareAddr{2, 0xba, 192, 0, 2, 1}
	out := a.packets()
	nobody4, nobody6 := netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8:1::99")
	for _, f := range [][]byte{
		frame(host, mac, unix.ETH_P_IP, packet4(one.Address, nobody4, unix.IPPROTO_UDP, udp(9, 9))),
		frame(host, mac, unix.ETH_P_IPV6, packet6(one.Address6, nobody6, unix.IPPROTO_UDP, udp(9, 9))),
	} {
		if _, err := unix.Write(out, f); err != nil {
			t.Error(err)
		}
	}
	a.reaches("udp", gateway+":53", "["+gateway6+"]:53") // comes later
	w.host.check(func() error {
		all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, n := range all {
			if at, _ := netip.AddrFromSlice(n.IP); at.Unmap() == nobody4 || at == nobody6 {
				t.Errorf("the host looks for %s", at)
			}
		}
		return err
	})
}
