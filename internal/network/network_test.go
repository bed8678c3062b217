package network_test

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"banger/internal/fault"
	"banger/internal/network"
)

func prefix() *rapid.Generator[netip.Prefix] {
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
	})
}

func TestPickSubnetOverlapsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := rapid.SliceOfN(prefix(), 0, 20).Draw(t, "used")
		p, err := network.PickSubnet(used)
		if err != nil {
			if !fault.Is(err, fault.Exhausted) {
				t.Fatal(err)
			}
			return
		}
		if err := network.CheckSubnet(p, used); err != nil {
			t.Fatalf("%s was picked among %v: %v", p, used, err)
		}
	})
}

func TestLeasesDiffer(t *testing.T) {
	subnet := netip.MustParsePrefix("10.9.8.0/26")
	pick := network.Picker(subnet)
	var taken []netip.Addr
	macs := map[string]bool{}
	for range 61 { // 64 less network, gateway and broadcast
		l, err := pick(taken)
		if err != nil {
			t.Fatal(err)
		}
		a := l.Address.Addr()
		if !subnet.Contains(a) || a == l.Gateway || a == netip.MustParseAddr("10.9.8.63") || macs[l.MAC] {
			t.Fatalf("lease %+v", l)
		}
		macs[l.MAC] = true
		taken = append(taken, a)
	}
	_, err := pick(taken)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "all 61 addresses of 10.9.8.0/26 are taken") {
		t.Errorf("got %v", err)
	}
	if l, err := pick(taken[1:]); err != nil || l.Address.Addr() != taken[0] {
		t.Errorf("a released address is not given again: %+v, %v", l, err)
	}
}

func TestCheckSubnet(t *testing.T) {
	used := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.1.0.0/16")}
	for _, c := range []struct{ subnet, want string }{
		{"10.2.0.0/22", ""},
		{"10.1.4.0/22", `use subnet "10.1.4.0/22": this host has a route or address in 10.1.0.0/16`},
		{"10.2.0.1/22", `use subnet "10.2.0.1/22": it has address bits beyond its length`},
		{"10.0.0.0/8", `use subnet "10.0.0.0/8": its length is not between 16 and 29`},
		{"8.8.8.0/24", `use subnet "8.8.8.0/24": it is not private`},
		{"fd00::/64", `use subnet "fd00::/64": it is not an IPv4 subnet`},
	} {
		err := network.CheckSubnet(netip.MustParsePrefix(c.subnet), used)
		if got := text(err); got != c.want {
			t.Errorf("%s: got %q, want %q", c.subnet, got, c.want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
