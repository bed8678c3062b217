package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Domain is what the names of VMs end in, on the host and in guests.
const Domain = "vm"

// Space is where an instance's VMs have their addresses.
type Space struct {
	Tag    vm.Tag       // of the instance
	Subnet netip.Prefix // IPv4
	ULA    netip.Prefix // IPv6: the instance's unique local /48; not valid where it has none
}

// NewULA is the unique local /48 with these 40 bits, which are to be random: so that no other network that this host
// ever joins has the same (RFC 4193).
func NewULA(random [5]byte) netip.Prefix {
	var b [16]byte
	b[0] = 0xfd
	copy(b[1:], random[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), ulaBits)
}

const ulaBits = 48

// blockBits is the length of what one bridge serves at most: a bridge has 1,023 ports, and the 1,021 guests of a /22 leave
// few of them over.
const blockBits = 22

// cid is the vsock context id of every guest: each Firecracker keeps its guest's to itself behind a
// Unix socket, so they need not differ. 0 to 2 are reserved.
const cid = 3

// Lease is the one of an address, but for the TAP's name. There is none of an address that is no guest's to have.
//
// The IPv6 address ends in the IPv4 one: whoever sees one of them knows the other, and a VM has both or none.
func (s Space) Lease(a netip.Addr) (vm.Lease, bool) {
	if !s.Subnet.IsValid() || !s.Subnet.Contains(a) {
		return vm.Lease{}, false
	}
	n := s.block(a)
	block := netip.PrefixFrom(a, max(s.Subnet.Bits(), blockBits)).Masked()
	gateway := block.Addr().Next()
	if a == block.Addr() || a == gateway || !block.Contains(a.Next()) { // the last one is the broadcast address
		return vm.Lease{}, false
	}
	l := vm.Lease{Address: netip.PrefixFrom(a, block.Bits()), Gateway: gateway, MAC: MAC(a), Bridge: s.Tag.Bridge(n), CID: cid}
	if s.ULA.IsValid() {
		l.Address6, l.Gateway6 = netip.PrefixFrom(s.in6(n, a), 64), s.in6(n, gateway)
	}
	return l, true
}

// block counts the blocks of the subnet before the one that an address is in.
func (s Space) block(a netip.Addr) int {
	number := func(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }
	return int(number(a)-number(s.Subnet.Addr())) >> (32 - blockBits)
}

// in6 is the address beside an IPv4 one in the /64 of a block.
func (s Space) in6(block int, a netip.Addr) netip.Addr {
	b, four := s.ULA.Addr().As16(), a.As4()
	binary.BigEndian.PutUint16(b[6:], uint16(block))
	copy(b[12:], four[:])
	return netip.AddrFrom16(b)
}

// Gateways are the host's addresses towards guests, of each bridge that there may be.
func (s Space) Gateways() []netip.Addr {
	if !s.Subnet.IsValid() {
		return nil
	}
	var out []netip.Addr
	blocks := 1 << max(0, blockBits-s.Subnet.Bits())
	for a, n := s.Subnet.Addr().Next(), 0; n < blocks; n++ {
		out = append(out, a)
		if s.ULA.IsValid() {
			out = append(out, s.in6(n, a))
		}
		four := a.As4()
		binary.BigEndian.PutUint32(four[:], binary.BigEndian.Uint32(four[:])+1<<(32-blockBits))
		a = netip.AddrFrom4(four)
	}
	return out
}

// Pick chooses a lease: the lowest address that no VM has and that does not rest. The first block is filled first, so that
// an instance with few VMs has one bridge. Where there is no such address it is the one of those which rest that has done
// so for the longest time, the first.
func (s Space) Pick(taken, resting []netip.Addr) (vm.Lease, error) {
	in, rests := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, a := range taken {
		in[a] = true
	}
	for _, a := range resting {
		rests[a] = true
	}
	for a := s.Subnet.Addr(); s.Subnet.Contains(a); a = a.Next() {
		if in[a] || rests[a] {
			continue
		}
		if l, ok := s.Lease(a); ok {
			return l, nil
		}
	}
	for _, a := range resting {
		if l, ok := s.Lease(a); ok && !in[a] {
			return l, nil
		}
	}
	blocks := 1 << max(0, blockBits-s.Subnet.Bits())
	room := 1<<(32-s.Subnet.Bits()) - 3*blocks // less each one's own address, gateway and broadcast address
	err := fault.New(fault.Exhausted, "all %d addresses of %s are taken", room, s.Subnet).WithOp("lease address", "")
	wider := netip.PrefixFrom(s.Subnet.Addr(), max(s.Subnet.Bits()-2, minBits)).Masked()
	if wider == s.Subnet {
		return vm.Lease{}, err.WithHint("delete VMs: no subnet can be wider")
	}
	return vm.Lease{}, err.WithHint("delete VMs, or set a wider subnet in the daemon's configuration, such as %s, which has this one in it, and restart the daemon", wider)
}

// OfMAC is the address that a MAC was derived from.
func OfMAC(mac net.HardwareAddr) (netip.Addr, bool) {
	if len(mac) != 6 || mac[0] != 0x02 || mac[1] != 0xba {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(mac[2:])), true
}

// MAC derives a locally administered address from an IPv4 one, so that a neighbour's stale ARP entry
// for an address that was given to another VM still finds the right machine.
func MAC(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("02:ba:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}
