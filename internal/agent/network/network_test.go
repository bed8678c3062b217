package network

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
	"banger/internal/netnstest"
)

// inNamespace runs the test in a network namespace of its own, with a bridge for a NIC.
func inNamespace(t *testing.T, test func(t *testing.T, nic netlink.Link)) {
	t.Helper()
	netnstest.In(t, func(t *testing.T) {
		mac, err := net.ParseMAC("02:00:00:00:00:05")
		if err == nil {
			err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "nic", HardwareAddr: mac}})
		}
		nic, findErr := netlink.LinkByName("nic")
		if err != nil || findErr != nil {
			t.Errorf("make a NIC: %v, %v", err, findErr)
			return
		}
		test(t, nic)
	})
}

// state is what the kernel says of the NIC.
func state(t *testing.T, nic netlink.Link) string {
	t.Helper()
	l, err := netlink.LinkByIndex(nic.Attrs().Index)
	if err != nil {
		t.Error(err)
		return ""
	}
	text := []string{l.Attrs().HardwareAddr.String(), "up " + fmt.Sprint(l.Attrs().Flags&net.FlagUp != 0)}
	addrs, err := netlink.AddrList(nic, netlink.FAMILY_ALL)
	if err != nil {
		t.Error(err)
	}
	for _, a := range addrs {
		if a.IP.IsLinkLocalUnicast() { // the kernel's own
			continue
		}
		line := "address " + a.IPNet.String()
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			line += ", not to be used yet"
		}
		text = append(text, line)
	}
	routes, err := netlink.RouteList(nic, netlink.FAMILY_ALL)
	if err != nil {
		t.Error(err)
	}
	var lines []string
	for _, r := range routes {
		if r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast() {
			continue
		}
		line := "route " + r.Dst.String()
		if r.Gw != nil {
			line += " by " + r.Gw.String()
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(append(text, lines...), "\n")
}

func first() agentproto.Network {
	return agentproto.Network{
		MAC: "02:00:00:00:00:05", Address: "10.9.0.5/24", Gateway: "10.9.0.1", Address6: "fd01:2:3::a09:5/64", Gateway6: "fd01:2:3::a09:1",
	}
}

func TestConfigureAndChange(t *testing.T) {
	inNamespace(t, func(t *testing.T, nic netlink.Link) {
		if err := Configure(new(first())); err != nil {
			t.Error(err)
			return
		}
		if d := cmp.Diff("02:00:00:00:00:05\nup true\naddress 10.9.0.5/24\naddress fd01:2:3::a09:5/64\nroute 0.0.0.0/0 by 10.9.0.1\nroute 10.9.0.0/24\nroute ::/0 by fd01:2:3::a09:1\nroute fd01:2:3::/64", state(t, nic)); d != "" {
			t.Errorf("after boot: %s", d)
		}
		// What the guest's users added belongs to the network that it was in.
		extra, err := netlink.ParseAddr("10.9.0.77/24")
		if err == nil {
			err = netlink.AddrAdd(nic, extra)
		}
		if err == nil {
			_, dst, _ := net.ParseCIDR("192.0.2.0/24")
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: nic.Attrs().Index, Dst: dst, Gw: net.IPv4(10, 9, 0, 9)})
		}
		if err != nil {
			t.Error(err)
			return
		}
		for _, c := range []struct {
			to   agentproto.Network
			want string
		}{
			{
				agentproto.Network{MAC: "02:00:00:00:00:99", Address: "10.7.0.9/16", Gateway: "10.7.0.1"},
				"02:00:00:00:00:99\nup true\naddress 10.7.0.9/16\nroute 0.0.0.0/0 by 10.7.0.1\nroute 10.7.0.0/16",
			},
			{
				agentproto.Network{MAC: "02:00:00:00:00:99", Address: "10.7.0.9/16", Gateway: "10.7.0.1", Address6: "fd01:2:3:1::a07:9/64", Gateway6: "fd01:2:3:1::a07:1"},
				"02:00:00:00:00:99\nup true\naddress 10.7.0.9/16\naddress fd01:2:3:1::a07:9/64\nroute 0.0.0.0/0 by 10.7.0.1\nroute 10.7.0.0/16\nroute ::/0 by fd01:2:3:1::a07:1\nroute fd01:2:3:1::/64",
			},
			{ // from a host without IPv6
				agentproto.Network{MAC: "02:00:00:00:00:99", Address: "10.7.0.9/16", Gateway: "10.7.0.1"},
				"02:00:00:00:00:99\nup true\naddress 10.7.0.9/16\nroute 0.0.0.0/0 by 10.7.0.1\nroute 10.7.0.0/16",
			},
			{ // the same again, as when an answer was lost
				agentproto.Network{MAC: "02:00:00:00:00:99", Address: "10.7.0.9/16", Gateway: "10.7.0.1"},
				"02:00:00:00:00:99\nup true\naddress 10.7.0.9/16\nroute 0.0.0.0/0 by 10.7.0.1\nroute 10.7.0.0/16",
			},
			{agentproto.Network{MAC: "02:00:00:00:00:05", Address: "10.7.0.10/16"}, "02:00:00:00:00:05\nup true\naddress 10.7.0.10/16\nroute 10.7.0.0/16"},
		} {
			n, err := c.to.Parse()
			if err == nil {
				err = change(nic, n)
			}
			if err != nil {
				t.Error(err)
			}
			if d := cmp.Diff(c.want, state(t, nic)); d != "" {
				t.Errorf("%+v: %s", c.to, d)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	inNamespace(t, func(t *testing.T, nic netlink.Link) {
		before := state(t, nic)
		stranger, bad, unreachable := first(), first(), first()
		stranger.MAC, bad.Address, unreachable.Gateway = "02:00:00:00:00:06", "10.9.0.5", "192.0.2.1"
		for _, c := range []struct {
			err  error
			want string
		}{
			{Configure(&stranger), "no interface has the address 02:00:00:00:00:06"},
			{Configure(&bad), `address "10.9.0.5": netip.ParsePrefix("10.9.0.5"): no '/'`},
			{Change(bad), `address "10.9.0.5": netip.ParsePrefix("10.9.0.5"): no '/'`},
			{Change(first()), "there is no network device"}, // none but one that somebody made
		} {
			if c.err == nil || c.err.Error() != c.want {
				t.Errorf("got %v, want %s", c.err, c.want)
			}
		}
		if d := cmp.Diff(before, state(t, nic)); d != "" {
			t.Errorf("what was refused was done: %s", d)
		}
		if err, want := Configure(&unreachable), "set default route by 192.0.2.1: network is unreachable"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// The NIC is told from what its guest's users have made, wherever in the list that is.
func TestDevice(t *testing.T) {
	attrs := func(name string, flags net.Flags) netlink.LinkAttrs {
		return netlink.LinkAttrs{Name: name, Flags: flags}
	}
	l, err := device([]netlink.Link{
		&netlink.Device{LinkAttrs: attrs("lo", net.FlagLoopback|net.FlagUp)},
		&netlink.Bridge{LinkAttrs: attrs("docker0", net.FlagUp)},
		&netlink.Device{LinkAttrs: attrs("eth0", net.FlagUp)},
	})
	if err != nil || l.Attrs().Name != "eth0" {
		t.Errorf("got %v, %v", l, err)
	}
}

// A guest without IPv6 has its IPv4 address all the same, and no error is told of what it has chosen.
func TestWithoutIPv6(t *testing.T) {
	inNamespace(t, func(t *testing.T, nic netlink.Link) {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/nic/disable_ipv6", []byte("1"), 0); err != nil {
			t.Error(err)
		}
		if err := Configure(new(first())); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff("02:00:00:00:00:05\nup true\naddress 10.9.0.5/24\nroute 0.0.0.0/0 by 10.9.0.1\nroute 10.9.0.0/24", state(t, nic)); d != "" {
			t.Error(d)
		}
	})
}
