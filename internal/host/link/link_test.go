package link_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/link"
	"banger/internal/netnstest"
	"banger/internal/network"
	"banger/internal/vm"
)

func lease(id vm.ID, tag vm.Tag, addr string) vm.Lease {
	p := netip.MustParsePrefix(addr)
	return vm.Lease{
		Address: p, Gateway: p.Masked().Addr().Next(), MAC: "02:00:00:00:00:05",
		TAP: id.TAP(tag), Bridge: tag.Bridge(0),
	}
}

// attach does both steps.
func attach(t *testing.T, links *link.Links, l vm.Lease) error {
	if err := links.Prepare(t.Context(), l); err != nil {
		return err
	}
	return links.Admit(t.Context(), l.TAP)
}

func names(t *testing.T) []string {
	links, err := netlink.LinkList()
	if err != nil {
		t.Error(err)
	}
	var names []string
	for _, l := range links {
		if l.Attrs().Name != "lo" {
			names = append(names, l.Attrs().Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestAttachAndDetach(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links := link.New("ab12", 0)
		one, two := lease("111111111111", "ab12", "10.9.0.5/24"), lease("222222222222", "ab12", "10.9.0.6/24")
		for _, l := range []vm.Lease{one, one, two} { // making what exists is success
			if err := attach(t, links, l); err != nil {
				t.Error(err)
				return
			}
		}
		if d := cmp.Diff([]string{"banger-ab12", "btab12-11111111", "btab12-22222222"}, names(t)); d != "" {
			t.Error(d)
		}
		bridge, err := netlink.LinkByName("banger-ab12")
		if err != nil {
			t.Error(err)
			return
		}
		if mac := bridge.Attrs().HardwareAddr.String(); mac != "02:ba:0a:09:00:01" {
			t.Errorf("bridge has MAC %s", mac)
		}
		checkUp(t, bridge)
		addrs, err := netlink.AddrList(bridge, netlink.FAMILY_ALL)
		if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.9.0.1/24" {
			t.Errorf("bridge has %v, %v", addrs, err)
		}
		tap, err := netlink.LinkByName(one.TAP)
		if err != nil {
			t.Error(err)
			return
		}
		checkUp(t, tap)
		if tap.Attrs().MasterIndex != bridge.Attrs().Index {
			t.Error("the TAP is not on the bridge")
		}
		openAsFirecracker(t, one.TAP).Close()

		for range 2 { // removing what is gone is success
			if err := links.Detach(t.Context(), one.TAP); err != nil {
				t.Error(err)
			}
		}
		if d := cmp.Diff([]string{"banger-ab12", "btab12-22222222"}, names(t)); d != "" {
			t.Error(d)
		}
		for range 2 {
			if err := links.Detach(t.Context(), two.TAP); err != nil {
				t.Error(err)
			}
		}
		if left := names(t); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func checkUp(t *testing.T, l netlink.Link) {
	if l.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("%s is down", l.Attrs().Name)
	}
	name := l.Attrs().Name
	if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6"); err == nil && strings.TrimSpace(string(off)) != "1" {
		t.Errorf("%s hears IPv6", name)
	}
	if l.Type() == "tuntap" && l.Attrs().RawFlags&unix.IFF_NOARP == 0 {
		t.Errorf("%s hears ARP", name)
	}
}

// openAsFirecracker opens the TAP with the ioctls that Firecracker 1.12 uses.
func openAsFirecracker(t *testing.T, name string) *os.File {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Error(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Errorf("TUNSETIFF: %v", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHeader); err != nil {
		t.Errorf("TUNSETVNETHDRSZ: %v", err)
	}
	return os.NewFile(uintptr(fd), name)
}

// TestNothingPassesBeforeItIsAdmitted speaks as a guest does: it asks, by ARP, who has the gateway's address.
func TestNothingPassesBeforeItIsAdmitted(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links, l := link.New("ab12", 0), lease("111111111111", "ab12", "10.9.0.5/24")
		if err := links.Prepare(t.Context(), l); err != nil {
			t.Error(err)
			return
		}
		guest := openAsFirecracker(t, l.TAP)
		defer guest.Close()
		who := whoHas(l)
		if _, err := guest.Write(who); !errors.Is(err, unix.EIO) {
			t.Errorf("before it is admitted: %v", err)
		}
		if err := links.Admit(t.Context(), l.TAP); err != nil {
			t.Error(err)
			return
		}
		if !answered(t, guest, who, []byte{0x02, 0xba, 10, 9, 0, 1, 10, 9, 0, 1}) { // the gateway's MAC and address
			return
		}
		// A VM that is restored where one ran is not heard either, until it is.
		if err := links.Prepare(t.Context(), l); err != nil {
			t.Error(err)
		}
		if _, err := guest.Write(who); !errors.Is(err, unix.EIO) {
			t.Errorf("prepared again: %v", err)
		}
	})
}

// answered asks until an answer holds want, as a guest does: a bridge that has its carrier since this moment may lose
// what is sent first.
func answered(t *testing.T, guest *os.File, ask, want []byte) bool {
	frame := make([]byte, 2048)
	for range 600 {
		if _, err := guest.Write(ask); err != nil {
			t.Error(err)
			return false
		}
		if err := guest.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Error(err)
			return false
		}
		for {
			n, err := guest.Read(frame)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Error(err)
				return false
			}
			if bytes.Contains(frame[:n], want) {
				return true
			}
		}
	}
	t.Error("no answer")
	return false
}

const vnetHeader = 12

// whoHas is an ARP request of the lease's guest for its gateway, behind an empty virtio header.
func whoHas(l vm.Lease) []byte {
	mac, _ := net.ParseMAC(l.MAC)
	frame := make([]byte, vnetHeader, vnetHeader+42)
	for _, part := range [][]byte{
		bytes.Repeat([]byte{0xff}, 6), mac, {0x08, 0x06}, // to all, from the guest, ARP
		{0, 1, 8, 0, 6, 4, 0, 1}, // Ethernet, IPv4, a request
		mac, l.Address.Addr().AsSlice(), make([]byte, 6), l.Gateway.AsSlice(),
	} {
		frame = append(frame, part...)
	}
	return frame
}

func TestAdmitWantsATAP(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		err := link.New("ab12", 0).Admit(t.Context(), "btab12-11111111")
		if err == nil || err.Error() != `bring up TAP "btab12-11111111": Link not found` {
			t.Errorf("got %v", err)
		}
	})
}

func TestAttachPutsRight(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links := link.New("ab12", 0)
		before := lease("111111111111", "ab12", "10.9.0.5/24")
		if err := attach(t, links, before); err != nil {
			t.Error(err)
			return
		}
		tap, _ := netlink.LinkByName(before.TAP)
		bridge, _ := netlink.LinkByName("banger-ab12")
		for _, err := range []error{netlink.LinkSetNoMaster(tap), netlink.LinkSetDown(tap), netlink.LinkSetDown(bridge)} {
			if err != nil {
				t.Error(err)
			}
		}
		if err := attach(t, links, lease("111111111111", "ab12", "10.8.0.5/24")); err != nil {
			t.Error(err)
			return
		}
		tap, _ = netlink.LinkByName(before.TAP)
		bridge, _ = netlink.LinkByName("banger-ab12")
		checkUp(t, tap)
		checkUp(t, bridge)
		if tap.Attrs().MasterIndex != bridge.Attrs().Index {
			t.Error("the TAP is not on the bridge")
		}
		addrs, err := netlink.AddrList(bridge, netlink.FAMILY_V4)
		if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.8.0.1/24" {
			t.Errorf("bridge has %v, %v", addrs, err)
		}
		if mac := bridge.Attrs().HardwareAddr.String(); mac != "02:ba:0a:08:00:01" {
			t.Errorf("bridge has MAC %s", mac)
		}
	})
}

// addresses are a device's, but for those that the kernel gives.
func addresses(t *testing.T, name string) []string {
	l, err := netlink.LinkByName(name)
	check(t, err)
	all, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	check(t, err)
	var out []string
	for _, a := range all {
		if a.IP.IsLinkLocalUnicast() {
			continue
		}
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			t.Errorf("%s cannot be used yet", a.IPNet)
		}
		out = append(out, a.IPNet.String())
	}
	slices.Sort(out)
	return out
}

// with6 adds IPv6 to a lease.
func with6(l vm.Lease, addr string) vm.Lease {
	l.Address6 = netip.MustParsePrefix(addr)
	l.Gateway6 = l.Address6.Masked().Addr().Next()
	return l
}

func TestIPv6(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links := link.New("ab12", 0)
		l := with6(lease("111111111111", "ab12", "10.9.0.5/24"), "fd01::5/64")
		for range 2 {
			check(t, attach(t, links, l))
			if d := cmp.Diff([]string{"10.9.0.1/24", "fd01::1/64"}, addresses(t, "banger-ab12")); d != "" {
				t.Error(d)
			}
		}
		for file, want := range map[string]string{"banger-ab12/accept_ra": "0", "banger-ab12/disable_ipv6": "0", l.TAP + "/disable_ipv6": "1"} {
			got, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + file)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %s, %v", file, got, err)
			}
		}
		check(t, attach(t, links, lease("111111111111", "ab12", "10.9.0.5/24"))) // without
		if d := cmp.Diff([]string{"10.9.0.1/24"}, addresses(t, "banger-ab12")); d != "" {
			t.Error(d)
		}
	})
}

// TestTheSubnetIsMovedWhileAVMRuns has that VM keep its gateway until it is gone.
func TestTheSubnetIsMovedWhileAVMRuns(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links := link.New("ab12", 0)
		old, moved := lease("111111111111", "ab12", "10.9.0.5/24"), lease("222222222222", "ab12", "10.8.0.5/24")
		check(t, attach(t, links, old))
		check(t, attach(t, links, moved))
		if d := cmp.Diff([]string{"10.8.0.1/24", "10.9.0.1/24"}, addresses(t, "banger-ab12")); d != "" {
			t.Error(d)
		}
		bridge, err := netlink.LinkByName("banger-ab12")
		check(t, err)
		if mac := bridge.Attrs().HardwareAddr.String(); mac != "02:ba:0a:09:00:01" {
			t.Errorf("bridge has MAC %s", mac)
		}
		check(t, links.Detach(t.Context(), old.TAP))
		check(t, attach(t, links, moved))
		if d := cmp.Diff([]string{"10.8.0.1/24"}, addresses(t, "banger-ab12")); d != "" {
			t.Error(d)
		}
	})
}

// TestSeveralBridges come and go each with its own VMs. The spare TAPs are on the first, and serve all.
func TestSeveralBridges(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links := link.New("ab12", 1)
		one, two := lease("111111111111", "ab12", "10.9.0.5/22"), lease("222222222222", "ab12", "10.9.4.5/22")
		two.Bridge = vm.Tag("ab12").Bridge(1)
		check(t, attach(t, links, two))
		check(t, links.Fill(t.Context()))
		holds(t, "banger-ab12-1", "btab12-22222222") // no spare one without the first
		check(t, attach(t, links, one))
		check(t, links.Fill(t.Context()))
		holds(t, "banger-ab12", "banger-ab12-1", "btab12-11111111", "btab12-22222222", "tap-pool-ab1200")
		three := two
		three.TAP = vm.ID("333333333333").TAP("ab12")
		check(t, attach(t, links, three)) // of the spare one
		holds(t, "banger-ab12", "banger-ab12-1", "btab12-11111111", "btab12-22222222", "btab12-33333333")
		second, err := netlink.LinkByName("banger-ab12-1")
		check(t, err)
		tap, err := netlink.LinkByName(three.TAP)
		check(t, err)
		if tap.Attrs().MasterIndex != second.Attrs().Index {
			t.Error("it is on another bridge")
		}
		used, err := links.InUse(t.Context())
		check(t, err)
		for _, c := range used {
			if c.Prefix.Overlaps(netip.MustParsePrefix("10.9.0.0/16")) {
				t.Errorf("its own %s is in use by others", c)
			}
		}
		check(t, links.Fill(t.Context()))
		check(t, links.Detach(t.Context(), one.TAP))
		holds(t, "banger-ab12-1", "btab12-22222222", "btab12-33333333")
		check(t, links.Detach(t.Context(), two.TAP))
		check(t, links.Detach(t.Context(), three.TAP))
		holds(t)

		strange := one
		strange.Bridge = "br0"
		if err := links.Prepare(t.Context(), strange); err == nil {
			t.Error("it was put on somebody's bridge")
		}
	})
}

func TestADeviceThatIsNotOurs(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "btab12-11111111"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			t.Error(err)
			return
		}
		err := attach(t, link.New("ab12", 0), lease("111111111111", "ab12", "10.9.0.5/24"))
		if !fault.Is(err, fault.AlreadyExists) || err.Error() != `make TAP "btab12-11111111": another kind of device has this name: bridge` {
			t.Errorf("got %v", err)
		}
	})
}

func TestInUse(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links := link.New("ab12", 0)
		if err := attach(t, links, lease("111111111111", "ab12", "10.9.0.5/24")); err != nil {
			t.Error(err)
			return
		}
		other := link.New("cd34", 0)
		if err := attach(t, other, lease("333333333333", "cd34", "172.30.4.9/20")); err != nil {
			t.Error(err)
			return
		}
		bridge, _ := netlink.LinkByName("banger-cd34")
		for _, r := range []string{"0.0.0.0/0", "192.168.77.0/24", "198.51.100.7/32"} {
			_, dst, _ := net.ParseCIDR(r)
			table := unix.RT_TABLE_MAIN
			if r == "198.51.100.7/32" {
				table = 1234
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: dst, Table: table}); err != nil {
				t.Errorf("%s: %v", r, err)
			}
		}
		used, err := links.InUse(t.Context())
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"172.30.0.0/20", "192.168.77.0/24", "198.51.100.7/32"} {
			if !slices.Contains(used, network.Claim{Prefix: netip.MustParsePrefix(want), Device: "banger-cd34"}) {
				t.Errorf("%s is missing in %v", want, used)
			}
		}
		for _, c := range used {
			if c.Prefix.Bits() == 0 || c.Prefix.Overlaps(netip.MustParsePrefix("10.9.0.0/24")) {
				t.Errorf("%s is counted as in use", c)
			}
		}
		idle := link.New("ef56", 0)
		for l, want := range map[*link.Links]bool{links: true, other: true, idle: false} {
			if busy, err := l.Busy(t.Context()); err != nil || busy != want {
				t.Errorf("busy is %v, %v", busy, err)
			}
		}
	})
}

func TestCheckTUN(t *testing.T) {
	if err := link.New("ab12", 0).CheckTUN(); err != nil {
		t.Error(err)
	}
}
