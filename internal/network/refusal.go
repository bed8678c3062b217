package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Refusal is something that a guest was refused on the network. A VM's network log has one a line, as JSON.
type Refusal struct {
	Time        time.Time  `json:"time"`
	Protocol    string     `json:"protocol"` // tcp, udp, icmp, icmpv6; dns for a name that was asked for; "" for others
	Destination netip.Addr `json:"destination,omitzero"`
	Port        uint16     `json:"port,omitempty"`
	Name        string     `json:"name,omitempty"` // that was asked for
	Why         string     `json:"why"`
	Lost        int        `json:"lost,omitempty"` // how many before it could not be told of
}

// String is a line for people.
func (r Refusal) String() string {
	what := r.Name
	if r.Destination.IsValid() {
		what = r.Destination.String()
		if r.Port != 0 {
			what = net.JoinHostPort(what, strconv.Itoa(int(r.Port)))
		}
	}
	protocol := r.Protocol
	if protocol == "" {
		protocol = "other"
	}
	text := fmt.Sprintf("%s  %-6s %s: %s", r.Time.Local().Format(time.DateTime), protocol, what, r.Why)
	if r.Lost > 0 {
		text += fmt.Sprintf(" (%d more before it)", r.Lost)
	}
	return text
}

// WhyRefused says, by a guest's policy, why a packet to somewhere outside was refused.
func WhyRefused(p Policy, to netip.Addr) string {
	switch {
	case Blocked(to):
		return "link-local addresses and those of cloud metadata are closed to guests"
	case p.Egress == EgressNone:
		return "egress is none"
	case p.Egress == EgressList && !p.Allow.HasAddress(to):
		return "egress is list, and no entry of the allow list has it"
	case to.Is4() && !p.NAT:
		return "nat is off"
	case to.Is6() && !p.NAT6:
		return "nat6 is off"
	}
	return "its policy was another then"
}

// WhyUnnamed says, by a guest's policy, why a name was not told.
func WhyUnnamed(p Policy) string {
	if p.Egress == EgressList {
		return "egress is list, and the allow list does not have the name"
	}
	return "egress is " + string(p.Egress)
}

// Blocked reports whether an address is closed to guests whatever their policy.
func Blocked(a netip.Addr) bool {
	return a.Unmap().IsLinkLocalUnicast() || slices.Contains(Metadata6(), a)
}

// Metadata6 are where clouds tell of their hosts by IPv6: EC2 and Google's. By IPv4 that is a link-local address.
func Metadata6() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254")}
}
