package firewall_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A bridge hands frames to the standard's link-local groups to the host's own protocols, as what came in by the port, past
// the hooks at which other frames are judged.
func TestLinkLocalFramesDoNotReachTheHost(t *testing.T) {
	one := guest(1)
	w := newWorld(t, one)
	a := w.guests[one.TAP]
	w.rebuild(one)
	mac, err := net.ParseMAC(one.MAC)
	if err != nil {
		t.Fatal(err)
	}
	var service net.PacketConn
	w.host.check(func() (err error) {
		var lc net.ListenConfig
		service, err = lc.ListenPacket(context.Background(), "udp4", "0.0.0.0:53")
		return err
	})
	if t.Failed() {
		return
	}
	defer func() { _ = service.Close() }()
	out := a.packets()
	send := func(to net.HardwareAddr, dst netip.Addr, text string) {
		f := frame(to, mac, unix.ETH_P_IP, packet4(one.Address, dst, unix.IPPROTO_UDP, udp(9, 53, []byte(text))))
		if _, err := unix.Write(out, f); err != nil {
			t.Error(err)
		}
	}
	for _, last := range []byte{0, 3, 0x0e, 0x0f} {
		send(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last}, netip.MustParseAddr(other), fmt.Sprintf("by the group %x", last))
	}
	stranger := netip.MustParseAddr("198.51.100.77")
	if _, err := unix.Write(out, frame(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, mac, unix.ETH_P_ARP, arp(1, mac, stranger, netip.MustParseAddr(other)))); err != nil {
		t.Error(err)
	}
	send(net.HardwareAddr{2, 0xba, 192, 0, 2, 1}, one.Gateway, "last")
	b := make([]byte, 100)
	for {
		if err := service.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := service.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the last frame did not come")
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(b[:n]) == "last" {
			break
		}
		t.Errorf("the host heard %q", b[:n])
	}
	w.host.check(func() error {
		all, err := netlink.NeighList(0, netlink.FAMILY_V4)
		if slices.ContainsFunc(all, func(n netlink.Neigh) bool { return n.IP.String() == stranger.String() }) {
			t.Error("the host noted a neighbour that a guest made up")
		}
		return err
	})
}
