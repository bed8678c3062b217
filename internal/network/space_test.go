package network_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"banger/internal/fault"
	"banger/internal/network"
)

func space(subnet string) network.Space {
	return network.Space{Tag: "ab12", Subnet: netip.MustParsePrefix(subnet), ULA: network.NewULA([5]byte{1, 2, 3, 4, 5})}
}

func TestLease(t *testing.T) {
	for _, c := range []struct{ subnet, addr, want string }{
		{"10.223.0.0/22", "10.223.0.5", "10.223.0.5/22 by 10.223.0.1, fd01:203:405::adf:5/64 by fd01:203:405::adf:1, on banger-ab12 as 02:ba:0a:df:00:05"},
		{"10.9.8.0/26", "10.9.8.62", "10.9.8.62/26 by 10.9.8.1, fd01:203:405::a09:83e/64 by fd01:203:405::a09:801, on banger-ab12 as 02:ba:0a:09:08:3e"},
		{"10.9.0.0/16", "10.9.255.254", "10.9.255.254/22 by 10.9.252.1, fd01:203:405:3f::a09:fffe/64 by fd01:203:405:3f::a09:fc01, on banger-ab12-63 as 02:ba:0a:09:ff:fe"},
		{"10.9.0.0/20", "10.9.4.2", "10.9.4.2/22 by 10.9.4.1, fd01:203:405:1::a09:402/64 by fd01:203:405:1::a09:401, on banger-ab12-1 as 02:ba:0a:09:04:02"},
		{"10.223.0.0/22", "10.223.4.5", ""},
		{"10.223.0.0/22", "10.223.0.0", ""},
		{"10.223.0.0/22", "10.223.0.1", ""},
		{"10.223.0.0/22", "10.223.3.255", ""},
		{"10.9.0.0/20", "10.9.3.255", ""}, // of the first block
		{"10.9.0.0/20", "10.9.4.0", ""},
		{"10.9.0.0/20", "10.9.4.1", ""},
		{"10.9.0.0/20", "fd00::1", ""},
	} {
		s := space(c.subnet)
		l, ok := s.Lease(netip.MustParseAddr(c.addr))
		got := ""
		if ok {
			got = l.Address.String() + " by " + l.Gateway.String() + ", " + l.Address6.String() + " by " + l.Gateway6.String() + ", on " + l.Bridge + " as " + l.MAC
		}
		if got != c.want {
			t.Errorf("%s of %s:\ngot  %s\nwant %s", c.addr, c.subnet, got, c.want)
		}
		if ok && (l.CID < 3 || l.TAP != "") {
			t.Errorf("%+v", l)
		}
	}
	if l, ok := (network.Space{Subnet: netip.MustParsePrefix("10.9.8.0/26")}).Lease(netip.MustParseAddr("10.9.8.2")); !ok || l.Address6.IsValid() || l.Gateway6.IsValid() {
		t.Errorf("without IPv6: %+v", l)
	}
	if _, ok := (network.Space{}).Lease(netip.MustParseAddr("10.9.8.2")); ok {
		t.Error("a lease of no subnet")
	}
}

// TestLeasesDiffer gives all of a subnet, in any width.
func TestLeasesDiffer(t *testing.T) {
	for subnet, room := range map[string]int{"10.9.8.0/29": 5, "10.9.8.0/26": 61, "10.9.8.0/22": 1021, "10.9.0.0/20": 4 * 1021} {
		s := space(subnet)
		var taken []netip.Addr
		seen := map[string]bool{}
		for a := s.Subnet.Addr(); s.Subnet.Contains(a); a = a.Next() {
			l, ok := s.Lease(a)
			if !ok {
				continue
			}
			if seen[l.MAC] || seen[l.Address6.String()] || !l.Address.Contains(l.Gateway) || !l.Address6.Contains(l.Gateway6) || !s.ULA.Contains(l.Gateway6) {
				t.Fatalf("lease %+v", l)
			}
			seen[l.MAC], seen[l.Address6.String()] = true, true
			taken = append(taken, a)
		}
		if len(taken) != room {
			t.Errorf("%s has %d", subnet, len(taken))
		}
		elsewhere := append([]netip.Addr{netip.MustParseAddr("192.168.1.1")}, taken...) // from before the subnet was changed
		_, err := s.Pick(elsewhere, nil)
		if !fault.Is(err, fault.Exhausted) || err.Error() != fmt.Sprintf("lease address: all %d addresses of %s are taken", room, subnet) || !strings.Contains(fault.From(err).Hint, "such as 10.9.") {
			t.Errorf("got %v", err)
		}
		if l, err := s.Pick(taken[1:], nil); err != nil || l.Address.Addr() != taken[0] {
			t.Errorf("a released address is not given again: %+v, %v", l, err)
		}
		if l, err := s.Pick(taken[:len(taken)-1], nil); err != nil || l.Address.Addr() != taken[len(taken)-1] {
			t.Errorf("the last is not given: %+v, %v", l, err)
		}
	}
}

// TestAReleasedAddressRests while there are others, and the one that has rested longest is given first.
func TestAReleasedAddressRests(t *testing.T) {
	s := space("10.9.8.0/29") // of which 2 to 6 are guests'
	addrs := func(hosts ...byte) (out []netip.Addr) {
		for _, h := range hosts {
			out = append(out, netip.AddrFrom4([4]byte{10, 9, 8, h}))
		}
		return out
	}
	for _, c := range []struct {
		taken, resting []netip.Addr
		want           string
	}{
		{addrs(3), addrs(2, 4), "10.9.8.5"},
		{addrs(3, 5, 6), addrs(4, 2), "10.9.8.4"},
		{addrs(3, 5, 6, 4), addrs(4, 2), "10.9.8.2"}, // as the stranger that has it again
		{addrs(2, 3, 4, 5, 6), addrs(1, 7, 9), ""},
	} {
		l, err := s.Pick(c.taken, c.resting)
		if c.want == "" {
			if !fault.Is(err, fault.Exhausted) {
				t.Errorf("%v: %v", c, err)
			}
		} else if err != nil || l.Address.Addr().String() != c.want {
			t.Errorf("%v: %s, %v", c, l.Address, err)
		}
	}
	widest := space("10.9.0.0/16")
	var all []netip.Addr
	for a := widest.Subnet.Addr(); widest.Subnet.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	if _, err := widest.Pick(all, nil); fault.From(err).Hint != "delete VMs: no subnet can be wider" {
		t.Errorf("got %v, %s", err, fault.From(err).Hint)
	}
}

func TestPickedLeasesFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(16, 29).Draw(t, "bits")
		base := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "2"), rapid.Byte().Draw(t, "3"), 0}), bits).Masked()
		s := network.Space{Tag: "ab12", Subnet: base, ULA: network.NewULA([5]byte{1})}
		var taken []netip.Addr
		for range rapid.IntRange(0, 40).Draw(t, "taken") {
			b := base.Addr().As4()
			offset := rapid.Uint32Range(0, 1<<(32-bits)-1).Draw(t, "offset")
			binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+offset)
			taken = append(taken, netip.AddrFrom4(b))
		}
		cut := rapid.IntRange(0, len(taken)).Draw(t, "resting")
		taken, resting := taken[:cut], taken[cut:]
		l, err := s.Pick(taken, resting)
		if err != nil {
			if bits < 29 {
				t.Fatal(err)
			}
			return
		}
		if a := l.Address.Addr(); slices.Contains(taken, a) || slices.Contains(resting, a) && bits < 25 {
			t.Fatalf("%s is not free", a)
		}
		if again, ok := s.Lease(l.Address.Addr()); !ok || again != l || len(l.Bridge) > 15 {
			t.Fatalf("%+v", l)
		}
	})
}

func TestGateways(t *testing.T) {
	for _, c := range []struct {
		subnet, want string
	}{
		{"10.223.0.0/22", "10.223.0.1 fd00:ba::adf:1"},
		{"10.223.0.0/29", "10.223.0.1 fd00:ba::adf:1"},
		{"10.223.0.0/21", "10.223.0.1 fd00:ba::adf:1 10.223.4.1 fd00:ba:0:1::adf:401"},
	} {
		s := network.Space{Subnet: netip.MustParsePrefix(c.subnet), ULA: netip.MustParsePrefix("fd00:ba::/48")}
		if got := strings.Trim(fmt.Sprint(s.Gateways()), "[]"); got != c.want {
			t.Errorf("%s: got %s, want %s", c.subnet, got, c.want)
		}
	}
	if got := (network.Space{}).Gateways(); got != nil {
		t.Errorf("of no subnet: %v", got)
	}
}

func TestMACs(t *testing.T) {
	for _, a := range []string{"10.9.8.7", "192.168.212.255", "0.0.0.0"} {
		addr := netip.MustParseAddr(a)
		mac, err := net.ParseMAC(network.MAC(addr))
		if got, ok := network.OfMAC(mac); err != nil || !ok || got != addr {
			t.Errorf("%s: %s, %v, %s, %v", a, mac, err, got, ok)
		}
	}
	for _, m := range []string{"02:bb:0a:09:08:07", "52:54:00:12:34:56", "02:ba:0a:09:08:07:00:00"} {
		mac, err := net.ParseMAC(m)
		if a, ok := network.OfMAC(mac); err != nil || ok {
			t.Errorf("%s: %s, %v", m, a, err)
		}
	}
}
