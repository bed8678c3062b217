package network_test

import (
	"net/netip"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

func TestAllowListIsReadAsItIsWritten(t *testing.T) {
	a, err := network.ParseAllow(" Example.COM., *.example.org,203.0.113.0/24,2001:db8::1, example.com")
	if err != nil {
		t.Fatal(err)
	}
	const want = "*.example.org,example.com,203.0.113.0/24,2001:db8::1"
	if a.String() != want {
		t.Errorf("got %q, want %q", a, want)
	}
	again, err := network.ParseAllow(a.String())
	if err != nil || again.String() != want {
		t.Errorf("read again: %q, %v", again, err)
	}
}

func TestAllowListRefuses(t *testing.T) {
	for entry, why := range map[string]string{
		"exa mple.com":                    "neither a name nor an address nor a CIDR",
		"example":                         "neither a name",
		"*":                               "neither a name",
		"*.*.example.com":                 "neither a name",
		"10.0.0.0/33":                     "not a valid CIDR",
		"10.0.0.1/8":                      "address bits beyond its length",
		"fe80::1%eth0":                    "no address that can be routed to",
		"::ffff:10.0.0.1":                 "no address that can be routed to",
		"::ffff:10.0.0.0/96":              "not a valid CIDR",
		strings.Repeat("a.", 130) + "com": "neither a name",
		many(network.MaxAllow + 1):        "at most 256",
	} {
		_, err := network.ParseAllow(entry)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), why) || fault.From(err).Hint == "" {
			t.Errorf("%.40q: got %v", entry, err)
		}
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}).String() + ",")
	}
	return b.String()
}

func TestAllowedNames(t *testing.T) {
	a, err := network.ParseAllow("example.com,*.example.org,203.0.113.0/24")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"example.com": true, "www.example.com": false, "example.org": false, "www.example.org": true, "a.b.example.org": true,
		"badexample.org": false, "org": false, "": false,
	} {
		if a.HasName(name) != want {
			t.Errorf("%q: got %v", name, !want)
		}
	}
	if !a.HasAddress(netip.MustParseAddr("203.0.113.9")) || a.HasAddress(netip.MustParseAddr("203.0.114.9")) {
		t.Error("addresses of the prefix alone are to be allowed")
	}
}

func TestAllowListIsEdited(t *testing.T) {
	a, err := network.ParseAllow("example.com,203.0.113.0/24")
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		"+example.org":                "example.com,example.org,203.0.113.0/24",
		"-example.com":                "203.0.113.0/24",
		"-203.0.113.0/24,+2001:db8::": "example.com,2001:db8::",
		"+example.com":                "example.com,203.0.113.0/24",
		"example.org":                 "example.org",
		"":                            "",
	} {
		if got, err := a.Edit(value); err != nil || got.String() != want {
			t.Errorf("%q: got %q, %v, want %q", value, got, err, want)
		}
	}
	for value, why := range map[string]string{
		"-example.org": `the allow list does not have it`, "+": "", "+exa mple": "neither a name", "+a.org,b.org": "neither",
	} {
		if _, err := a.Edit(value); err != nil && !strings.Contains(err.Error(), why) || err == nil && why != "" {
			t.Errorf("%q: got %v", value, err)
		}
	}
}

func FuzzParseAllow(f *testing.F) {
	f.Add("example.com,*.x.org,10.0.0.0/8,fd00::/8")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := network.ParseAllow(text)
		if err != nil {
			return
		}
		again, err := network.ParseAllow(a.String())
		if err != nil || again.String() != a.String() {
			t.Errorf("%q is read as %q, and that as %q, %v", text, a, again, err)
		}
	})
}

func TestPolicyIsTheInstancesWhereTheVMSaysNothing(t *testing.T) {
	defaults := network.Policy{NAT: true, Egress: network.EgressAll}
	if p := network.PolicyOf(vm.VM{}, defaults); !p.NAT || p.Isolated || p.Egress != network.EgressAll {
		t.Errorf("got %+v", p)
	}
	p := network.PolicyOf(vm.VM{Settings: map[string]string{"nat": "off", "isolated": "on", "egress": "list", "allow": "example.com"}}, defaults)
	if p.NAT || !p.Isolated || p.Egress != network.EgressList || p.Allow.String() != "example.com" {
		t.Errorf("got %+v", p)
	}
	// What a newer banger wrote, and this one cannot read, opens nothing.
	p = network.PolicyOf(vm.VM{Settings: map[string]string{"egress": "sometimes", "allow": "???"}}, network.Policy{Egress: network.EgressAll, Allow: p.Allow})
	if p.Egress != network.EgressNone || p.Allow.String() != "" {
		t.Errorf("got %+v", p)
	}
}
