package network_test

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"banger/internal/fault"
	"banger/internal/network"
)

func claim() *rapid.Generator[network.Claim] {
	return rapid.Custom(func(t *rapid.T) network.Claim {
		b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")
		return network.Claim{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()}
	})
}

func claims(text string) (out []network.Claim) {
	for _, p := range strings.Fields(text) {
		out = append(out, network.Claim{Prefix: netip.MustParsePrefix(p), Device: "tun0"})
	}
	return out
}

func TestPickSubnetOverlapsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := rapid.SliceOfN(claim(), 0, 20).Draw(t, "used")
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

// all returns the candidates in order: each is what is left when those before it are in use.
func all(t *testing.T) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	var used []network.Claim
	for range 1000 {
		p, err := network.PickSubnet(used)
		if err != nil {
			if !fault.Is(err, fault.Exhausted) || fault.From(err).Hint == "" {
				t.Fatal(err)
			}
			return out
		}
		out, used = append(out, p), append(used, network.Claim{Prefix: p})
	}
	t.Fatal("it never runs out")
	return nil
}

func TestCandidatesKeepClearOfWhatComesLater(t *testing.T) {
	subnets := all(t)
	if len(subnets) < 10 {
		t.Errorf("only %v", subnets)
	}
	for owner, taken := range map[string]string{
		"Docker's networks":       "172.16.0.0/12",
		"Docker's last pool":      "192.168.0.0/17",
		"OpenShift's services":    "172.30.0.0/16",
		"OpenShift Local":         "10.217.0.0/16",
		"OpenShift's pods":        "10.128.0.0/14",
		"Parallels":               "10.211.55.0/24",
		"Azure's Kubernetes":      "10.224.0.0/12",
		"flannel, Azure's CNI":    "10.244.0.0/16",
		"Swarm":                   "10.255.0.0/16",
		"Podman":                  "10.88.0.0/14",
		"Kubernetes' services":    "10.96.0.0/12",
		"MicroK8s' services":      "10.152.183.0/24",
		"Weave":                   "10.32.0.0/12",
		"k3s":                     "10.42.0.0/15",
		"QEMU and LXC":            "10.0.0.0/16",
		"OpenVPN":                 "10.8.0.0/16",
		"libvirt":                 "192.168.122.0/24",
		"VirtualBox":              "192.168.56.0/21",
		"routers":                 "192.168.0.0/22",
		"a router maker's favour": "192.168.178.0/24",
		"routers at the top":      "192.168.240.0/20",
		"carriers, Tailscale":     "100.64.0.0/10",
	} {
		for _, p := range subnets {
			if p.Overlaps(netip.MustParsePrefix(taken)) {
				t.Errorf("%s is where %s may come: %s", p, owner, taken)
			}
		}
	}
}

func TestPickSubnetBesideRoutes(t *testing.T) {
	for _, c := range []struct {
		name string
		used string
		want string
	}{
		{"nothing", "", "10.223.0.0/22"},
		{"default route", "0.0.0.0/0", "10.223.0.0/22"},
		{"default route in halves, as VPNs have it", "0.0.0.0/1 128.0.0.0/1", "10.223.0.0/22"},
		{"all but one server, in pieces", "0.0.0.0/5 8.0.0.0/7 12.0.0.0/6 16.0.0.0/4 128.0.0.0/1", "10.223.0.0/22"},
		{"IPv6", "::/0 fd00::/8 ::ffff:10.223.0.0/112", "10.223.0.0/22"},
		{"a host in it", "10.223.1.7/32", "10.223.64.0/22"},
		{"a host beside it", "10.223.4.0/32", "10.223.0.0/22"},
		{"its last address", "10.223.3.255/32", "10.223.64.0/22"},
		{"a wider route", "10.223.0.0/16", "10.197.0.0/22"},
		{"a narrower route", "10.223.2.0/24 10.223.64.128/25", "10.223.128.0/22"},
		{"a VPN with all of 10", "10.0.0.0/8", "192.168.212.0/22"},
		{"everything private", "10.0.0.0/8 192.168.0.0/16", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := network.PickSubnet(claims(c.used))
			if c.want == "" {
				if !fault.Is(err, fault.Exhausted) || !strings.Contains(fault.From(err).Hint, "set subnet") {
					t.Errorf("got %v, %v", p, err)
				}
				return
			}
			if err != nil || p.String() != c.want {
				t.Errorf("got %v, %v; want %s", p, err, c.want)
			}
		})
	}
}

func TestCheckSubnet(t *testing.T) {
	used := claims("0.0.0.0/0 10.1.0.0/16")
	for _, c := range []struct{ subnet, want string }{
		{"10.2.0.0/22", ""},
		{"10.1.4.0/22", `use subnet "10.1.4.0/22": it overlaps 10.1.0.0/16, which this host reaches by tun0`},
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
