package dns

import (
	"net/netip"

	"github.com/miekg/dns"

	"banger/internal/network"
)

// Tell returns what a guest is told of a name: its addresses, or why there is none, as the answer's code has it. What a guest
// learns by asking it learns by this too.
func (s *Server) Tell(g network.Guest, name string) (addrs []netip.Addr, code string) {
	code = dns.RcodeToString[dns.RcodeSuccess]
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		q := &query{face: face{local: g.Gateway, guests: true, tcp: true}, from: g.Address}
		ask := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
		packet, err := ask.Pack()
		if err != nil {
			return nil, dns.RcodeToString[dns.RcodeFormatError]
		}
		r, later := s.respond(packet, q)
		if later != nil {
			r = later()
		}
		if r.msg.Rcode != dns.RcodeSuccess {
			code = dns.RcodeToString[r.msg.Rcode]
		}
		for _, rr := range r.msg.Answer {
			if a := addressOf(rr, qtype); a.IsValid() {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs, code
}
