package dhcp

import (
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"banger/internal/network"
	"banger/internal/vm"
)

// leaseTime is what guests are told. Their address is theirs for longer than that: they only ask again.
const leaseTime = time.Hour

// answer is what a request gets, and where it is sent to: the unspecified address is for all of the bridge. Nil is nothing.
func (s *server) answer(packet []byte) (reply *dhcpv4.DHCPv4, to netip.Addr) {
	req, err := dhcpv4.FromBytes(packet)
	if err != nil || req.OpCode != dhcpv4.OpcodeBootRequest || req.HWType != iana.HWTypeEthernet || len(req.ClientHWAddr) != 6 {
		return nil, to
	}
	if !req.GatewayIPAddr.IsUnspecified() { // by a relay: no guest is behind one
		return nil, to
	}
	l, name, ok := s.lease(req.ClientHWAddr)
	if !ok || l.Bridge != s.bridge {
		return nil, to
	}
	gateway, address := net.IP(l.Gateway.AsSlice()), net.IP(l.Address.Addr().AsSlice())
	if other := req.ServerIdentifier(); other != nil && !other.Equal(gateway) { // it has chosen another server
		return nil, to
	}
	from, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway)))
	if err != nil {
		return nil, to
	}
	to = l.Address.Addr()
	if req.IsBroadcast() {
		to = netip.IPv4Unspecified()
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		from.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeOffer))
	case dhcpv4.MessageTypeRequest:
		wanted := req.RequestedIPAddress()
		if wanted == nil {
			wanted = req.ClientIPAddr
		}
		if !wanted.Equal(address) { // as of a guest that remembers what it had before
			from.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
			return from, netip.IPv4Unspecified()
		}
		from.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeAck))
	case dhcpv4.MessageTypeInform:
		if !req.ClientIPAddr.Equal(address) {
			return nil, to
		}
		from.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeAck))
	default:
		return nil, to
	}
	if req.MessageType() != dhcpv4.MessageTypeInform { // who only asks for the rest has its address by other means
		from.YourIPAddr = address
		from.UpdateOption(dhcpv4.OptIPAddressLeaseTime(leaseTime))
	}
	s.describe(from, l, name)
	return from, to
}

// describe adds what the agent tells a guest of its network, too.
func (s *server) describe(reply *dhcpv4.DHCPv4, l vm.Lease, name string) {
	gateway := net.IP(l.Gateway.AsSlice())
	for _, o := range []dhcpv4.Option{
		dhcpv4.OptSubnetMask(net.CIDRMask(l.Address.Bits(), 32)),
		dhcpv4.OptRouter(gateway),
		dhcpv4.OptDNS(gateway),
		dhcpv4.OptHostName(name),
		dhcpv4.OptDomainName(network.Domain),
		dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{network.Domain}}),
		{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(s.mtu)},
	} {
		reply.UpdateOption(o)
	}
}
