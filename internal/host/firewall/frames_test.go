package firewall_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// frame is what a guest writes to its device.
func frame(to, from net.HardwareAddr, kind uint16, payload ...[]byte) []byte {
	f := slices.Concat(to, from, binary.BigEndian.AppendUint16(nil, kind))
	return append(f, bytes.Join(payload, nil)...)
}

func sum(parts ...[]byte) []byte {
	var n uint32
	b := bytes.Join(parts, nil)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	for i := 0; i < len(b); i += 2 {
		n += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return binary.BigEndian.AppendUint16(nil, ^uint16(n))
}

func packet4(src, dst netip.Addr, protocol byte, payload ...[]byte) []byte {
	body := bytes.Join(payload, nil)
	h := slices.Concat([]byte{0x45, 0}, binary.BigEndian.AppendUint16(nil, uint16(20+len(body))), []byte{0, 1, 0, 0, 64, protocol, 0, 0}, src.AsSlice(), dst.AsSlice())
	copy(h[10:], sum(h))
	return append(h, body...)
}

func packet6(src, dst netip.Addr, next byte, payload ...[]byte) []byte {
	body := bytes.Join(payload, nil)
	return slices.Concat([]byte{0x60, 0, 0, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(body))), []byte{next, 255}, src.AsSlice(), dst.AsSlice(), body)
}

func icmp6(src, dst netip.Addr, kind byte, payload ...[]byte) []byte {
	body := bytes.Join(payload, nil)
	m := slices.Concat([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, body)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(m)))
	copy(m[2:], sum(src.AsSlice(), dst.AsSlice(), length, []byte{0, 0, 0, unix.IPPROTO_ICMPV6}, m))
	return packet6(src, dst, unix.IPPROTO_ICMPV6, m)
}

func udp(from, to uint16, payload ...[]byte) []byte {
	body := bytes.Join(payload, nil)
	h := binary.BigEndian.AppendUint16(nil, from)
	h = binary.BigEndian.AppendUint16(h, to)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(body)))
	return append(append(h, 0, 0), body...)
}

// dhcp is a request of the client with this MAC, as far as the rules read it.
func dhcp(client net.HardwareAddr) []byte {
	return udp(68, 67, []byte{1, 1, 6, 0}, make([]byte, 24), client, make([]byte, 202))
}

func arp(op byte, sha net.HardwareAddr, spa netip.Addr, tpa netip.Addr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, op}, sha, spa.AsSlice(), make([]byte, 6), tpa.AsSlice())
}

// packets opens the place's network device for frames.
func (p *place) packets() (fd int) {
	p.t.Helper()
	p.check(on("eth0", func(l netlink.Link) (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL))); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: l.Attrs().Index})
	}))
	p.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

type sent struct {
	name   string
	frame  []byte
	passes bool
}

// crossing sends frames from one place, and tells which came to another: each has a mark at its end, and one that passes
// is sent last.
func crossing(from, to *place, frames []sent, last []byte) []string {
	out, in := from.packets(), to.packets()
	mark := func(i int) []byte { return fmt.Appendf(nil, "mark%04d", i) }
	for i, s := range append(frames, sent{frame: last}) {
		if _, err := unix.Write(out, slices.Concat(s.frame, mark(i))); err != nil {
			from.t.Errorf("%s: %v", s.name, err)
		}
	}
	var seen []string
	b := make([]byte, 2000)
	for begun := time.Now(); time.Since(begun) < 5*time.Second; {
		n, err := unix.Read(in, b)
		if err != nil {
			break
		}
		for i, s := range frames {
			if bytes.HasSuffix(b[:n], mark(i)) {
				seen = append(seen, s.name)
			}
		}
		if bytes.HasSuffix(b[:n], mark(len(frames))) {
			return seen
		}
	}
	to.t.Errorf("the last frame did not come; seen: %v", seen)
	return seen
}

func TestFrames(t *testing.T) {
	one, two := guest(1), guest(2)
	w := newWorld(t, one, two)
	a, b := w.guests[one.TAP], w.guests[two.TAP]
	w.rebuild(one, two)
	// It would cut off the mark, which is behind what the headers count.
	w.netfilter("0")
	mac, err := net.ParseMAC(one.MAC)
	if err != nil {
		t.Fatal(err)
	}
	theirs := net.HardwareAddr{2, 0, 192, 0, 2, 99}
	all := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	everyone, zero := netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("0.0.0.0")
	other4, other6 := netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8:1::99")
	local, otherLocal := netip.MustParseAddr("fe80::c0ff:fe00:201"), netip.MustParseAddr("fe80::1")
	group, unset := netip.MustParseAddr("ff02::1"), netip.IPv6Unspecified()
	const ip4, ip6, arpType = unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP
	honest := frame(all, mac, ip4, packet4(one.Address, everyone, unix.IPPROTO_UDP, udp(9, 9)))
	target := func(a netip.Addr) []byte { return a.AsSlice() }
	frames := []sent{
		{"honest", honest, true},
		{"of another MAC", frame(all, theirs, ip4, packet4(one.Address, everyone, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"of another address", frame(all, mac, ip4, packet4(other4, everyone, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"of the gateway's address", frame(all, mac, ip4, packet4(one.Gateway, everyone, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"of the other guest's address", frame(all, mac, ip4, packet4(two.Address, everyone, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"DHCP discover", frame(all, mac, ip4, packet4(zero, everyone, unix.IPPROTO_UDP, dhcp(mac))), true},
		{"DHCP renewal", frame(all, mac, ip4, packet4(one.Address, everyone, unix.IPPROTO_UDP, dhcp(mac))), true},
		{"DHCP renewal of another address", frame(all, mac, ip4, packet4(other4, everyone, unix.IPPROTO_UDP, dhcp(mac))), false},
		{"DHCP discover of another", frame(all, mac, ip4, packet4(zero, everyone, unix.IPPROTO_UDP, dhcp(theirs))), false},
		{"DHCP renewal of another", frame(all, mac, ip4, packet4(one.Address, everyone, unix.IPPROTO_UDP, dhcp(theirs))), false},
		{"DHCP that is cut off", frame(all, mac, ip4, packet4(one.Address, everyone, unix.IPPROTO_UDP, udp(68, 67, make([]byte, 20)))), false},
		{"of no address", frame(all, mac, ip4, packet4(zero, everyone, unix.IPPROTO_UDP, udp(68, 69))), false},
		{"of no address to one host", frame(all, mac, ip4, packet4(zero, two.Address, unix.IPPROTO_UDP, dhcp(mac))), false},
		{"DHCP offer", frame(all, mac, ip4, packet4(one.Address, everyone, unix.IPPROTO_UDP, udp(67, 68))), false},

		{"ARP request", frame(all, mac, arpType, arp(1, mac, one.Address, two.Address)), true},
		{"ARP probe", frame(all, mac, arpType, arp(1, mac, zero, one.Address)), true},
		{"ARP reply of no address", frame(all, mac, arpType, arp(2, mac, zero, one.Address)), false},
		{"ARP reply", frame(all, mac, arpType, arp(2, mac, one.Address, two.Address)), true},
		{"ARP for the gateway", frame(all, mac, arpType, arp(2, mac, one.Gateway, two.Address)), false},
		{"ARP of another MAC", frame(all, mac, arpType, arp(2, theirs, one.Address, two.Address)), false},
		{"ARP with another kind of address", frame(all, mac, arpType, append([]byte{0, 6}, arp(2, mac, one.Address, two.Address)[2:]...)), false},

		{"IPv6", frame(all, mac, ip6, packet6(one.Address6, group, unix.IPPROTO_UDP, udp(9, 9))), true},
		{"IPv6 link-local", frame(all, mac, ip6, packet6(local, group, unix.IPPROTO_UDP, udp(9, 9))), true},
		{"IPv6 of another", frame(all, mac, ip6, packet6(other6, group, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"IPv6 of another link-local", frame(all, mac, ip6, packet6(otherLocal, group, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"IPv6 of none", frame(all, mac, ip6, packet6(unset, group, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"router advertisement", frame(all, mac, ip6, icmp6(local, group, 134)), false},
		{"redirect", frame(all, mac, ip6, icmp6(local, group, 137)), false},
		{"DHCPv6 advertise", frame(all, mac, ip6, packet6(local, group, unix.IPPROTO_UDP, udp(547, 546))), false},
		{"neighbour solicitation", frame(all, mac, ip6, icmp6(one.Address6, group, 135, target(two.Address6))), true},
		{"neighbour advertisement", frame(all, mac, ip6, icmp6(one.Address6, group, 136, target(one.Address6))), true},
		{"neighbour advertisement for another", frame(all, mac, ip6, icmp6(one.Address6, group, 136, target(two.Address6))), false},
		{"is its own address free", frame(all, mac, ip6, icmp6(unset, group, 135, target(local))), true},
		{"is another's address free", frame(all, mac, ip6, icmp6(unset, group, 135, target(two.Address6))), false},
		{"multicast listener report", frame(all, mac, ip6, icmp6(unset, group, 143)), true},
		{"multicast listener report behind a header", frame(all, mac, ip6, packet6(unset, group, 0, []byte{unix.IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0}, icmp6(unset, group, 143)[40:])), true},
		{"router advertisement behind a header", frame(all, mac, ip6, packet6(local, group, 0, []byte{unix.IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0}, icmp6(local, group, 134)[40:])), false},
		{"router solicitation of none", frame(all, mac, ip6, icmp6(unset, group, 133)), false},

		{"VLAN", frame(all, mac, unix.ETH_P_8021Q, []byte{0, 5, 8, 0}, packet4(one.Address, everyone, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"VLAN 0", frame(all, mac, unix.ETH_P_8021Q, []byte{0, 0, 8, 0}, packet4(one.Address, everyone, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"VLAN in VLAN", frame(all, mac, unix.ETH_P_8021AD, []byte{0, 5, 8, 0}, packet4(one.Address, everyone, unix.IPPROTO_UDP, udp(9, 9))), false},
		{"another protocol", frame(all, mac, 0x88b5, make([]byte, 50)), false},
		{"spanning tree", frame(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, mac, 38, make([]byte, 38)), false},
	}
	var want []string
	for _, f := range frames {
		if f.passes {
			want = append(want, f.name)
		}
	}
	if d := cmp.Diff(want, crossing(a, b, frames, honest)); d != "" {
		t.Errorf("what passes (-want +got):\n%s", d)
	}

	// A TAP that is in no set passes nothing.
	w.at(func() error { return w.fw.Drop(t.Context(), one.TAP) })
	third := guest(3)
	w.plug(third)
	w.put(third)
	c := w.guests[third.TAP]
	mac3, err := net.ParseMAC(third.MAC)
	if err != nil {
		t.Fatal(err)
	}
	from3 := frame(all, mac3, ip4, packet4(third.Address, everyone, unix.IPPROTO_UDP, udp(9, 9)))
	out := a.packets()
	if _, err := unix.Write(out, append(honest, "mark0000"...)); err != nil {
		t.Error(err)
	}
	if got := crossing(c, b, nil, from3); len(got) > 0 {
		t.Errorf("%v passed", got)
	}
}
