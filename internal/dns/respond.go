package dns

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// face is how the server shows itself on a socket.
type face struct {
	local  netip.Addr // of the socket
	guests bool       // whether guests ask there; else it is the host
	tcp    bool
}

// query is one that was read.
type query struct {
	face
	from netip.Addr
	msg  dns.Msg
	name string // asked for, in lower case
}

// response is what is sent back, within a limit in bytes. nil is nothing.
type response struct {
	msg   *dns.Msg
	limit int
}

// maxUDP is the largest answer over UDP: what passes everywhere without being cut into fragments.
const maxUDP = 1232

// respond reads a query and answers it. What must wait for others is left to later, which may be called on another goroutine.
func (s *Server) respond(packet []byte, q *query) (now *response, later func() *response) {
	const header, isResponse = 12, 0x80
	if len(packet) < header || packet[2]&isResponse != 0 {
		return nil, nil // to answer an answer would have two servers answer each other for ever
	}
	if err := q.msg.Unpack(packet); err != nil || len(q.msg.Question) != 1 || len(q.msg.Answer) > 0 {
		opcode := int(packet[2]>>3) & 0xf
		rcode := dns.RcodeFormatError
		if opcode != dns.OpcodeQuery {
			rcode = dns.RcodeNotImplemented
		}
		return &response{&dns.Msg{MsgHdr: dns.MsgHdr{Id: binary.BigEndian.Uint16(packet), Response: true, Opcode: opcode, Rcode: rcode}}, dns.MinMsgSize}, nil
	}
	m := new(dns.Msg).SetReply(&q.msg)
	m.RecursionAvailable = q.guests
	r := &response{m, dns.MinMsgSize}
	if q.tcp {
		r.limit = dns.MaxMsgSize
	}
	if opt := q.msg.IsEdns0(); opt != nil {
		m.SetEdns0(maxUDP, opt.Do())
		if !q.tcp {
			r.limit = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
		}
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return r, nil
		}
	}
	asked := q.msg.Question[0]
	switch {
	case q.msg.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
	case doubleOPT(&q.msg):
		m.Rcode = dns.RcodeFormatError
	case asked.Qclass != dns.ClassINET, asked.Qtype == dns.TypeAXFR, asked.Qtype == dns.TypeIXFR:
		m.Rcode = dns.RcodeRefused
	default:
		q.name = strings.ToLower(asked.Name)
		if wait := s.answer(m, q); wait != nil {
			return nil, func() *response {
				wait()
				return r
			}
		}
	}
	return r, nil
}

func doubleOPT(m *dns.Msg) bool {
	seen := 0
	for _, rr := range m.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			seen++
		}
	}
	return seen > 1
}

// pack writes it, cut where it is too long. buf is used if it has the room.
func (r *response) pack(buf []byte) []byte {
	if r == nil {
		return nil
	}
	r.msg.Compress = len(r.msg.Answer) > 1
	out, err := r.msg.PackBuffer(buf)
	if err == nil && len(out) > r.limit {
		r.msg.Truncate(r.limit)
		out, err = r.msg.PackBuffer(buf)
	}
	if err != nil { // a record that cannot be written, which an upstream may have sent
		r.msg.Rcode, r.msg.Answer, r.msg.Ns = dns.RcodeServerFailure, nil, nil
		if out, err = r.msg.PackBuffer(buf); err != nil {
			return nil
		}
	}
	return out
}
