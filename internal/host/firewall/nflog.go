package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Refusal is a packet that was not let through.
type Refusal struct {
	At          time.Time
	VM          vm.ID // of the guest that sent it; "" when it has gone since
	TAP         string
	Protocol    string         // tcp, udp, icmp, icmpv6; "" for others
	Source      netip.AddrPort // without a port where the protocol has none
	Destination netip.AddrPort
	Towards     Place
	Lost        int // how many before it could not be told of
}

// Place is where a packet was to go.
type Place string

// The places.
const (
	ToHost    Place = "host" // its own services
	ToGuest   Place = "vm"   // or to a guest, one of them being isolated
	ToOutside Place = "outside"
)

// What is said to the kernel's nfnetlink_log, from its header.
const (
	nflogPacket = unix.NFNL_SUBSYS_ULOG << 8
	nflogConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	attrConfigCommand   = 1
	attrConfigMode      = 2
	attrConfigThreshold = 5
	attrConfigFlags     = 6
	commandBind         = 1
	flagSequence        = 1
	copyPacket          = 2

	attrPacketHeader = 1
	attrPayload      = 9
	attrSequence     = 12
	hookInput        = 1
)

// Refusals tells of packets that were refused until the context ends: at most 10 a second of each guest, as the kernel has been
// told. Who is slow to take them misses some, and is told how many; the kernel never waits.
func (f *Firewall) Refusals(ctx context.Context, each func(Refusal)) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return f.explain("listen for refusals of", f.name, err)
	}
	defer func() { _ = c.Close() }()
	if err := f.bind(c); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return fault.New(fault.InUse, "another program takes the messages of NFLOG group %d", f.group).WithOp("listen for refusals of", f.name).
				WithHint("end the other program: `cat /proc/net/netfilter/nfnetlink_log` has its port in the second column")
		}
		return f.explain("listen for refusals of", f.name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var next uint32
	for {
		messages, err := c.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, unix.ENOBUFS) {
			continue // the next one's number tells how many were lost
		}
		if err != nil {
			return f.explain("listen for refusals of", f.name, err)
		}
		for _, m := range messages {
			if m.Header.Type != nflogPacket {
				continue
			}
			r, number, ok := parseRefusal(m.Data, time.Now())
			if !ok {
				continue
			}
			r.Lost, next = int(number-next), number+1
			f.place(&r)
			each(r)
		}
	}
}

// bind asks for the group's packets, each at once and with a number.
func (f *Firewall) bind(c *netlink.Conn) error {
	if err := c.SetReadBuffer(1 << 20); err != nil {
		return err
	}
	mode := append(binary.BigEndian.AppendUint32(nil, snapLength), copyPacket, 0)
	for _, attrs := range [][]netlink.Attribute{
		{{Type: attrConfigCommand, Data: []byte{commandBind}}},
		{
			{Type: attrConfigMode, Data: mode},
			{Type: attrConfigThreshold, Data: binary.BigEndian.AppendUint32(nil, 1)},
			{Type: attrConfigFlags, Data: binary.BigEndian.AppendUint16(nil, flagSequence)},
		},
	} {
		data, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			return err
		}
		header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, f.group)
		if _, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: nflogConfig, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(header, data...),
		}); err != nil {
			return err
		}
	}
	return nil
}

// place says whose packet it was, and whether it was for another guest.
func (f *Firewall) place(r *Refusal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.byAddr[r.Source.Addr()]; g != nil {
		r.TAP, r.VM = g.TAP, g.ID
	}
	if f.byAddr[r.Destination.Addr()] != nil {
		r.Towards = ToGuest
	}
}

// parseRefusal reads a message of the kernel's.
func parseRefusal(data []byte, now time.Time) (r Refusal, number uint32, ok bool) {
	if len(data) < 4 {
		return r, 0, false
	}
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return r, 0, false
	}
	ad.ByteOrder = binary.BigEndian
	r.At, r.Towards = now, ToOutside
	var packet []byte
	for ad.Next() {
		switch ad.Type() {
		case attrPacketHeader:
			if b := ad.Bytes(); len(b) >= 3 && b[2] == hookInput {
				r.Towards = ToHost
			}
		case attrPayload:
			packet = ad.Bytes()
		case attrSequence:
			number = ad.Uint32()
		}
	}
	return r, number, ad.Err() == nil && r.read(packet)
}

// read takes protocol and addresses from the packet's headers.
func (r *Refusal) read(packet []byte) bool {
	var protocol byte
	var src, dst netip.Addr
	var rest []byte
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		protocol = packet[9]
		if n := int(packet[0]&15) * 4; n <= len(packet) {
			rest = packet[n:]
		}
	case len(packet) >= 40 && packet[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		protocol, rest = packet[6], packet[40:]
	default:
		return false
	}
	var from, to uint16
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		r.Protocol = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
		if len(rest) >= 4 {
			from, to = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		}
	case unix.IPPROTO_ICMP:
		r.Protocol = "icmp"
	case unix.IPPROTO_ICMPV6:
		r.Protocol = "icmpv6"
	}
	r.Source, r.Destination = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
	return true
}
