package network_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/network"
)

func TestDestinations(t *testing.T) {
	for text, want := range map[string]string{
		"Example.com.": "example.com", "example.com:443": "example.com:443", "203.0.113.7": "203.0.113.7", "203.0.113.7:22": "203.0.113.7:22",
		"2001:db8::1": "2001:db8::1", "[2001:db8::1]:22": "[2001:db8::1]:22", "[2001:db8::1]": "2001:db8::1", "::ffff:203.0.113.7": "203.0.113.7",
		"https://example.com/x?y": "example.com:443", "http://203.0.113.7:8080": "203.0.113.7:8080", "dev": "dev.vm", "foo://dev": "dev.vm", "localhost:80": "127.0.0.1:80",
	} {
		if d, err := network.ParseDestination(text); err != nil || d.String() != want {
			t.Errorf("%q: got %q, %v, want %q", text, d, err, want)
		}
	}
	for text, why := range map[string]string{
		"": "neither", "exa mple": "neither", "example.com:0": "the port", "example.com:http": "the port", "example.com:99999": "the port",
		"fe80::1%eth0": "zone", "*.example.com": "neither", "http://[": "not a valid URL", "-x": "neither",
	} {
		if _, err := network.ParseDestination(text); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), why) || fault.From(err).Hint == "" {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func FuzzParseDestination(f *testing.F) {
	f.Add("https://[::1]:22/")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := network.ParseDestination(text)
		if err != nil {
			return
		}
		if again, err := network.ParseDestination(d.String()); err != nil || again != d {
			t.Errorf("%q is read as %q, and that as %q, %v", text, d, again, err)
		}
	})
}

// TestExplain holds the words, which step it ends at, and the way out.
func TestExplain(t *testing.T) {
	outside, inside := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("10.9.0.5")
	base := func() network.Facts {
		return network.Facts{
			Guest: network.Guest{
				Name: "dev", Address: netip.MustParseAddr("10.9.0.2"), Gateway: netip.MustParseAddr("10.9.0.1"),
				Policy: network.Policy{NAT: true, Egress: network.EgressAll},
			},
			Address: outside, Port: 443, Forwards: true,
			Route: network.Route{Device: "eth0", Gateway: netip.MustParseAddr("192.0.2.1"), Source: netip.MustParseAddr("192.0.2.9")},
		}
	}
	list, err := network.ParseAllow("example.com,198.51.100.0/24")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(f *network.Facts)
		steps  string // "subject: detail" of each, those that do not pass with a "!"
		hint   string
	}{
		"out": {
			func(*network.Facts) {},
			"egress: egress is all; NAT: it leaves with the host's address 192.0.2.9; route: by eth0, through 192.0.2.1; kernel: the host's kernel forwards packets; other firewalls: none drops it", "",
		},
		"none": {
			func(f *network.Facts) { f.Guest.Policy.Egress = network.EgressNone },
			"!egress: egress is none", "banger vm set dev --egress list --allow 203.0.113.7",
		},
		"name not in list": {
			func(f *network.Facts) {
				f.Guest.Policy.Egress, f.Guest.Policy.Allow = network.EgressList, list
				f.Name, f.Unnamed, f.Address = "example.org", "NXDOMAIN", netip.Addr{}
			},
			"!name: egress is list, and the allow list does not have the name", "banger vm set dev --allow +example.org",
		},
		"name in list": {
			func(f *network.Facts) {
				f.Guest.Policy.Egress, f.Guest.Policy.Allow = network.EgressList, list
				f.Name, f.Learned, f.By = "example.com", time.Unix(1, 0), "example.com"
			},
			"name: the guest is told 203.0.113.7; egress: egress is list, and the guest was told it for example.com, which the allow list has; NAT: it leaves with the host's address 192.0.2.9; route: by eth0, through 192.0.2.1; kernel: the host's kernel forwards packets; other firewalls: none drops it", "",
		},
		"address not in list": {
			func(f *network.Facts) { f.Guest.Policy.Egress, f.Guest.Policy.Allow = network.EgressList, list },
			"!egress: egress is list, and no entry of the allow list has it", "banger vm set dev --allow +203.0.113.7",
		},
		"address in list": {
			func(f *network.Facts) {
				f.Guest.Policy.Egress, f.Guest.Policy.Allow = network.EgressList, list
				f.Address, f.Guest.Policy.NAT = netip.MustParseAddr("198.51.100.9"), false
			},
			"egress: egress is list, and the allow list has it; !NAT: nat is off, and nobody out there could answer the guest's own address", "banger vm set dev --nat on",
		},
		"metadata": {
			func(f *network.Facts) { f.Address = netip.MustParseAddr("169.254.169.254") },
			"!address: link-local addresses and those of cloud metadata are closed to guests", "nothing does: have the host ask, and hand on what it is told",
		},
		"metadata by IPv6": {
			func(f *network.Facts) { f.Address, f.Guest.Policy.NAT6 = netip.MustParseAddr("fd00:ec2::254"), true },
			"!address: link-local addresses and those of cloud metadata are closed to guests", "nothing does: have the host ask, and hand on what it is told",
		},
		"loopback": {
			func(f *network.Facts) { f.Address, f.Route.Local = netip.MustParseAddr("127.0.0.1"), true },
			"address: it is the guest's own", "",
		},
		"neighbour": {
			func(f *network.Facts) {
				f.Address, f.Other = inside, &network.Guest{Name: "other", Policy: network.Policy{Isolated: true}}
			},
			"!isolation: other is isolated from other VMs", "banger vm set other --isolated off",
		},
		"open neighbour": {
			func(f *network.Facts) { f.Address, f.Other = inside, &network.Guest{Name: "other"} },
			"isolation: it is other's, and neither of the two is isolated", "",
		},
		"unknown VM": {
			func(f *network.Facts) { f.Name, f.Unnamed, f.Address = "nobody.vm", "NXDOMAIN", netip.Addr{} },
			"!name: NXDOMAIN", "see `banger vm list`: a VM has a name while it runs",
		},
		"name, isolated": {
			func(f *network.Facts) {
				f.Name, f.Unnamed, f.Address, f.Guest.Policy.Isolated = "other.vm", "NXDOMAIN", netip.Addr{}, true
			},
			"!isolation: dev is isolated from other VMs", "banger vm set dev --isolated off",
		},
		"name of an isolated one": {
			func(f *network.Facts) {
				f.Name, f.Unnamed, f.Address = "other.vm", "NXDOMAIN", netip.Addr{}
				f.Other = &network.Guest{Name: "other", Policy: network.Policy{Isolated: true}}
			},
			"!isolation: other is isolated from other VMs", "banger vm set other --isolated off",
		},
		"name nobody knows": {
			func(f *network.Facts) { f.Name, f.Unnamed, f.Address = "no.example", "NXDOMAIN", netip.Addr{} },
			"!name: NXDOMAIN", "see whether the host itself finds it, and which resolvers /etc/resolv.conf has",
		},
		"gateway's DNS": {
			func(f *network.Facts) { f.Address, f.Port, f.Route.Local = f.Guest.Gateway, 53, true },
			"services: the gateway answers DNS", "",
		},
		"gateway's SSH": {
			func(f *network.Facts) { f.Address, f.Port, f.Route.Local = f.Guest.Gateway, 22, true },
			"!services: of the gateway's ports only DNS (53) is open to guests", "have the host connect to the guest instead: `banger vm port add`, `ssh -R`",
		},
		"host": {
			func(f *network.Facts) { f.Route.Local = true },
			"!services: it is the host's own, whose services are closed to guests", "have the host connect to the guest instead: `banger vm port add`, `ssh -R`",
		},
		"no route": {
			func(f *network.Facts) { f.Route = network.Route{Err: "network is unreachable"} },
			"egress: egress is all; NAT: it leaves with an address of the host's; !route: the host has no route to it: network is unreachable", "see `ip route get 203.0.113.7` on the host",
		},
		"no forwarding": {
			func(f *network.Facts) { f.Forwards, f.Route.Gateway = false, netip.Addr{} },
			"egress: egress is all; NAT: it leaves with the host's address 192.0.2.9; route: by eth0; !kernel: the host's kernel does not forward packets", "somebody turned it off: start the VM again, or `sysctl -w net.ipv4.ip_forward=1`",
		},
		"Docker": {
			func(f *network.Facts) { f.Drops = []string{"Docker"} },
			"egress: egress is all; NAT: it leaves with the host's address 192.0.2.9; route: by eth0, through 192.0.2.1; kernel: the host's kernel forwards packets; !other firewalls: Docker drops what the host forwards", "see `banger doctor`",
		},
		"itself": {func(f *network.Facts) { f.Address = f.Guest.Address }, "address: it is the guest's own", ""},
		"IPv6 without": {
			func(f *network.Facts) { f.Address = netip.MustParseAddr("2001:db8::1") },
			"!address: the guest has no IPv6 address", "stop and start the VM, which gives it one",
		},
	} {
		f := base()
		c.change(&f)
		e := network.Explain(f)
		var got []string
		for i, s := range e.Steps {
			text := s.Subject + ": " + s.Detail
			if !s.Passes {
				text = "!" + text
			}
			if s.Passes != (i < len(e.Steps)-1 || e.Passes) {
				t.Errorf("%s: %q is not the end", name, text)
			}
			got = append(got, text)
		}
		if text := strings.Join(got, "; "); text != c.steps || e.Hint != c.hint {
			t.Errorf("%s:\ngot  %s (%s)\nwant %s (%s)", name, text, e.Hint, c.steps, c.hint)
		}
	}
}
