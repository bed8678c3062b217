package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/network"
)

func guestOf(p network.Policy) network.Guest {
	return network.Guest{
		TAP: "btab12-1", MAC: "02:00:c0:00:02:05", Address: netip.MustParseAddr("192.0.2.5"), Gateway: netip.MustParseAddr("192.0.2.1"),
		Address6: netip.MustParseAddr("2001:db8::5"), Gateway6: netip.MustParseAddr("2001:db8::1"), Policy: p,
	}
}

// text shows an element as nft would.
func text(e element) string {
	halves := func(key string) string {
		if len(key) == 4 || len(key) == 16 && e.set != setApart {
			a, _ := netip.AddrFromSlice([]byte(key))
			return a.String()
		}
		if strings.HasPrefix(key, "bt") {
			tap, rest := strings.TrimRight(key[:16], "\x00"), []byte(key[16:])
			switch a, ok := netip.AddrFromSlice(rest); {
			case len(rest) == 0:
				return tap
			case ok:
				return tap + " . " + a.String()
			default:
				return fmt.Sprintf("%s . %x", tap, rest)
			}
		}
		a, _ := netip.AddrFromSlice([]byte(key[:len(key)/2]))
		b, _ := netip.AddrFromSlice([]byte(key[len(key)/2:]))
		return a.String() + " . " + b.String()
	}
	s := e.set + " " + halves(e.key)
	if e.end != "" {
		s += " - " + halves(e.end)
	}
	return s
}

func TestElements(t *testing.T) {
	base := []string{
		"addresses4 btab12-1 . 192.0.2.5",
		"addresses6 btab12-1 . 2001:db8::5",
		"addresses6 btab12-1 . fe80::c0ff:fe00:205",
		"gateways4 192.0.2.5 . 192.0.2.1",
		"gateways6 2001:db8::5 . 2001:db8::1",
		"gateways6 fe80::c0ff:fe00:205 . 2001:db8::1",
		"guests4 192.0.2.5",
		"guests6 2001:db8::5",
		"guests6 fe80::c0ff:fe00:205",
		"macs btab12-1 . 0200c00002050000",
		"near6 2001:db8::5 . 2001:db8::",
		"near6 fe80::c0ff:fe00:205 . 2001:db8::",
	}
	list := network.Allow{
		Names:    []string{"example.com"},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("203.0.113.128/25"), netip.MustParsePrefix("2001:db8:f::/47"), netip.MustParsePrefix("198.51.100.7/32")},
	}
	for _, tt := range []struct {
		name   string
		policy network.Policy
		more   []string
	}{
		{"nothing", network.Policy{Egress: network.EgressNone}, nil},
		{"no NAT", network.Policy{Egress: network.EgressAll}, []string{"open4 192.0.2.5", "open6 2001:db8::5"}},
		{"NAT", network.Policy{NAT: true, Egress: network.EgressAll}, []string{"nat4 192.0.2.5", "open4 192.0.2.5", "open6 2001:db8::5"}},
		{"NAT of IPv6", network.Policy{NAT6: true, Egress: network.EgressAll}, []string{"nat6 2001:db8::5", "open4 192.0.2.5", "open6 2001:db8::5"}},
		{"NAT to nowhere", network.Policy{NAT: true, Egress: network.EgressNone}, []string{"nat4 192.0.2.5"}},
		{"a policy of a newer release", network.Policy{NAT: true, Egress: "some"}, []string{"nat4 192.0.2.5"}},
		{"isolated", network.Policy{Isolated: true}, []string{"isolated btab12-1", "isolated4 192.0.2.5", "isolated6 2001:db8::5", "isolated6 fe80::c0ff:fe00:205"}},
		{"a list", network.Policy{NAT: true, NAT6: true, Egress: network.EgressList, Allow: list}, []string{
			"nat4 192.0.2.5", "nat6 2001:db8::5",
			"allow4 192.0.2.5 . 198.51.100.7 - 192.0.2.5 . 198.51.100.7",
			"allow4 192.0.2.5 . 203.0.113.0 - 192.0.2.5 . 203.0.113.255",
			"allow6 2001:db8::5 . 2001:db8:e:: - 2001:db8::5 . 2001:db8:f:ffff:ffff:ffff:ffff:ffff",
		}},
		{"a list that is not asked", network.Policy{NAT: true, Egress: network.EgressAll, Allow: list}, []string{"nat4 192.0.2.5", "open4 192.0.2.5", "open6 2001:db8::5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, p := range tt.policy.Allow.Prefixes {
				tt.policy.Allow.Prefixes[i] = p.Masked()
			}
			var got []string
			for e := range elements(guestOf(tt.policy)) {
				got = append(got, text(e))
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(append(slices.Clone(base), tt.more...)))
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestElementsOfWhoLacksSomething(t *testing.T) {
	g := guestOf(network.Policy{NAT: true, NAT6: true, Isolated: true, Egress: network.EgressAll})
	g.Address6, g.Gateway6 = netip.Addr{}, netip.Addr{}
	for e := range elements(g) {
		if strings.HasSuffix(e.set, "6") && !slices.Contains([]string{setAddrs6, setGuests6, setApart6}, e.set) { // all of the link-local address
			t.Errorf("without an IPv6 address: %s", text(e))
		}
	}
	g.MAC = "none"
	if all := elements(g); len(all) != 0 {
		t.Errorf("without a MAC it has %d elements", len(all))
	}
}

func TestLastOf(t *testing.T) {
	for prefix, want := range map[string]string{
		"0.0.0.0/0": "255.255.255.255", "203.0.113.7/32": "203.0.113.7", "203.0.113.4/30": "203.0.113.7", "10.0.0.0/7": "11.255.255.255",
		"::/0": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/33": "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff",
	} {
		if got := lastOf(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("%s ends with %s, want %s", prefix, got, want)
		}
	}
}

func TestMayReach(t *testing.T) {
	open := &guest{Guest: guestOf(network.Policy{NAT: true, Egress: network.EgressAll})}
	apart := &guest{Guest: guestOf(network.Policy{Isolated: true})}
	listed := &guest{
		Guest:   guestOf(network.Policy{NAT: true, Egress: network.EgressList, Allow: network.Allow{Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/30")}}}),
		learned: map[netip.Addr]lesson{netip.MustParseAddr("203.0.113.9"): {}},
	}
	for _, tt := range []struct {
		who   *guest
		dst   string
		other *guest
		want  bool
	}{
		{open, "203.0.113.1", nil, true},
		{open, "2001:db8:f::1", nil, false},
		{open, "192.0.2.9", listed, true},
		{open, "192.0.2.9", apart, false},
		{apart, "192.0.2.9", open, false},
		{apart, "192.0.2.1", nil, true},
		{apart, "203.0.113.1", nil, false},
		{listed, "203.0.113.1", nil, true},
		{listed, "203.0.113.9", nil, true},
		{listed, "203.0.113.8", nil, false},
	} {
		if got := tt.who.mayReach(netip.MustParseAddr(tt.dst), tt.other); got != tt.want {
			t.Errorf("%+v to %s: %v", tt.who.Policy, tt.dst, got)
		}
	}
}

func FuzzParseRefusal(f *testing.F) {
	f.Add([]byte{0, 0, 0xab, 0x12, 8, 0, 1, 0, 8, 0, 1, 0, 8, 0, 12, 0, 0, 0, 0, 7, 24, 0, 9, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 5, 203, 0, 113, 7})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, ok := parseRefusal(data, time.Time{})
		if ok && (!r.Source.Addr().IsValid() || !r.Destination.Addr().IsValid()) {
			t.Errorf("%+v", r)
		}
	})
}
