// Package network chooses addresses: the instance's subnet, and each VM's place in it. No I/O.
package network

import (
	"fmt"
	"net/netip"

	"banger/internal/fault"
)

// candidates are the subnets that are tried, in this order. Only what the host uses now can be seen,
// so they keep clear of what is likely to come later:
//
//   - 172.16.0.0/12 is what Docker takes its networks from, one after another (its services on
//     OpenShift and a cloud's default VPC are there too). No candidate is in it;
//   - of 10.0.0.0/8 the lower half is crowded: LANs, cloud VPCs, VPN servers (10.8, 10.13), QEMU's
//     and LXC's NAT (10.0), k3s (10.42, 10.43), Podman (10.88 and up), Kubernetes services
//     (10.96.0.0/12). In the upper half one cloud's automatic subnets have even second numbers up
//     to 10.220, and OpenShift (10.128.0.0/14, 10.217), Parallels (10.211), AKS (10.224.0.0/12),
//     flannel (10.244) and Swarm (10.255) have places of their own;
//   - a VPN that routes all of 10.0.0.0/8 leaves only 192.168.0.0/16, where home routers are at the
//     ends, libvirt at 122, VirtualBox and minikube from 39 to 105.
func candidates() []netip.Prefix {
	var out []netip.Prefix
	for _, second := range []int{223, 197, 193, 181, 173} {
		for third := 0; third < 256; third += 64 {
			out = append(out, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/22", second, third)))
		}
	}
	for _, third := range []int{212, 228, 236} {
		out = append(out, netip.MustParsePrefix(fmt.Sprintf("192.168.%d.0/22", third)))
	}
	return out
}

// Bits that a subnet may have: room for two VMs at least, and no more than a bridge has ports for.
const (
	minBits = 16
	maxBits = 29
)

// Claim is what of the addresses this host has to do with already.
type Claim struct {
	Prefix netip.Prefix
	Device string // by which the host reaches them; "" where it refuses them
}

func (c Claim) String() string {
	if c.Device == "" {
		return c.Prefix.String() + ", which this host has a route for"
	}
	return c.Prefix.String() + ", which this host reaches by " + c.Device
}

// PickSubnet returns the first candidate that overlaps nothing in use.
func PickSubnet(used []Claim) (netip.Prefix, error) {
	for _, c := range candidates() {
		if _, taken := overlap(c, used); !taken {
			return c, nil
		}
	}
	return netip.Prefix{}, fault.New(fault.Exhausted, "every subnet that banger tries overlaps a route or address of this host").
		WithOp("choose subnet", "").WithHint("set subnet in the daemon's configuration to one that is free, such as 10.199.0.0/22")
}

// CheckSubnet reports why the instance cannot use a subnet, or nil.
func CheckSubnet(p netip.Prefix, used []Claim) error {
	bad := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, format, args...).WithOp("use subnet", p.String())
	}
	switch {
	case !p.Addr().Is4():
		return bad("it is not an IPv4 subnet").WithHint("such as 10.199.0.0/22")
	case p != p.Masked():
		return bad("it has address bits beyond its length").WithHint("write %s", p.Masked())
	case p.Bits() < minBits || p.Bits() > maxBits:
		return bad("its length is not between %d and %d", minBits, maxBits).WithHint("such as %s/22", p.Addr())
	case !p.Addr().IsPrivate():
		return bad("it is not private").WithHint("take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
	}
	if other, taken := overlap(p, used); taken {
		free := "to one that is free"
		if other, err := PickSubnet(used); err == nil {
			free = "to one that is free, such as " + other.String()
		}
		return fault.New(fault.InUse, "it overlaps %s", other).WithOp("use subnet", p.String()).
			WithHint("set subnet in the daemon's configuration %s, and restart the daemon: each VM moves when it is started next", free)
	}
	return nil
}

// minClaim is the length from which on a route claims the addresses in it. The largest private range
// has it; shorter ones are a default route, or the halves and pieces in which VPNs write one down.
const minClaim = 8

// overlap finds what p overlaps. IPv6 never does.
func overlap(p netip.Prefix, used []Claim) (Claim, bool) {
	for _, u := range used {
		if u.Prefix.Bits() >= minClaim && u.Prefix.Overlaps(p) {
			return u, true
		}
	}
	return Claim{}, false
}
