package link_test

import (
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/host/link"
	"banger/internal/netnstest"
)

func TestTheBridgeLearnsNothingByLinkLocalFrames(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links := link.New("ab12", 0)
		if err := links.Prepare(t.Context(), lease("111111111111", "ab12", "10.9.0.5/24")); err != nil {
			t.Error(err)
			return
		}
		bridge, err := netlink.LinkByName("banger-ab12")
		if err != nil {
			t.Error(err)
			return
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = "port", bridge.Attrs().Index
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "guest"}); err != nil {
			t.Error(err)
			return
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = unix.Close(fd) }()
		var guest netlink.Link
		for _, name := range []string{"port", "guest"} {
			if guest, err = netlink.LinkByName(name); err == nil {
				err = netlink.LinkSetUp(guest)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
		send := func(to, from net.HardwareAddr) {
			frame := slices.Concat(to, from, []byte{0x88, 0xcc}, make([]byte, 50))
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: guest.Attrs().Index}); err != nil {
				t.Error(err)
			}
		}
		others, own := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
		for !knows(t, own) && !t.Failed() { // a port forwards a little after both ends are up; frames come in order
			for _, last := range []byte{3, 0x0e} {
				send(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last}, others)
			}
			send(net.HardwareAddr{255, 255, 255, 255, 255, 255}, own)
		}
		if knows(t, others) {
			t.Error("the bridge learned a MAC by a link-local frame")
		}
	})
}

func knows(t *testing.T, mac net.HardwareAddr) bool {
	all, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		t.Error(err)
	}
	return slices.ContainsFunc(all, func(n netlink.Neigh) bool { return n.HardwareAddr.String() == mac.String() })
}
