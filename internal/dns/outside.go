package dns

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"banger/internal/network"
)

// How long a guest may connect to what it was told: as long as it may keep the answer, and a while for those who keep it a little longer.
const (
	grace    = 30 * time.Second
	minLearn = time.Minute
)

// Bounds of an answer under a policy: an allowed name's owner may write what he likes into it, and the firewall keeps it.
const (
	maxLearned = 64
	maxCNAMEs  = 16
)

// outside answers a guest's query for what is no VM's.
func (s *Server) outside(m *dns.Msg, q *query, g network.Guest) (wait func()) {
	policed := g.Policy.Egress != network.EgressAll
	asked := m.Question[0]
	if policed {
		name := strings.TrimSuffix(q.name, ".")
		switch {
		case g.Policy.Egress != network.EgressList || !g.Policy.Allow.HasName(name):
			if s.news(q.from, name, time.Now().Unix()) {
				s.Refused(g, name)
			}
			block(m, g)
			return nil
		case asked.Qtype != dns.TypeA && asked.Qtype != dns.TypeAAAA:
			m.Ns = []dns.RR{soa(".", negative)}
			return nil
		}
	}
	if !s.enter(q.from) {
		m.Rcode = dns.RcodeServerFailure
		return nil
	}
	return func() {
		defer s.exit(q.from)
		up, err := s.Ask(s.ctx, q.name, asked.Qtype)
		if err != nil {
			s.Log.Debug("ask the host's resolvers", "name", q.name, "error", err)
			m.Rcode = dns.RcodeServerFailure
			return
		}
		m.Rcode, m.Answer, m.Ns = up.Rcode, up.Answer, up.Ns
		if policed {
			s.police(m, q, g)
		}
	}
}

// block says that there is no such name. REFUSED would be the truth, but not the end of it: musl and systemd-resolved ask again until they
// run out of time, and glibc reports a failure that is temporary, which programs try again. The reason goes along for those who can read it.
func block(m *dns.Msg, g network.Guest) {
	m.Rcode = dns.RcodeNameError
	m.Ns = []dns.RR{soa(".", negative)}
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: "egress policy of " + g.Name})
	}
}

// police reduces an answer to the addresses that were asked for, without those that a guest under a policy may not have, and has them learned.
func (s *Server) police(m *dns.Msg, q *query, g network.Guest) {
	kept, addrs, keep := chain(m.Answer, q.name, m.Question[0].Qtype)
	m.Answer, m.Ns = nil, nil
	if len(addrs) == 0 {
		if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
			m.Ns = []dns.RR{soa(".", negative)}
		}
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, slow)
	defer cancel()
	if err := s.Learner.Learn(ctx, g.TAP, strings.TrimSuffix(q.name, "."), addrs, max(keep+grace, minLearn)); err != nil {
		s.fail(m, q, err)
		return
	}
	m.Answer = kept
}

// chain follows a name by CNAMEs to its public addresses: the records on that way, the addresses, and for how long all of it holds.
func chain(answer []dns.RR, name string, qtype uint16) (kept []dns.RR, addrs []netip.Addr, keep time.Duration) {
	keep = maxTTL
	for range maxCNAMEs + 1 {
		next := ""
		for _, rr := range answer {
			h := rr.Header()
			if strings.ToLower(h.Name) != name || h.Class != dns.ClassINET {
				continue
			}
			if c, ok := rr.(*dns.CNAME); ok && next == "" {
				next = strings.ToLower(c.Target)
			} else if a := addressOf(rr, qtype); public(a) && len(addrs) < maxLearned {
				addrs = append(addrs, a)
			} else {
				continue
			}
			kept, keep = append(kept, rr), min(keep, time.Duration(h.Ttl)*time.Second)
		}
		if next == "" || len(addrs) > 0 {
			break
		}
		name = next
	}
	return kept, addrs, keep
}

// addressOf is a record's address, if it is of the type.
func addressOf(rr dns.RR, qtype uint16) (a netip.Addr) {
	switch rr := rr.(type) {
	case *dns.A:
		if qtype == dns.TypeA {
			a, _ = netip.AddrFromSlice(rr.A)
		}
	case *dns.AAAA:
		if qtype == dns.TypeAAAA {
			a, _ = netip.AddrFromSlice(rr.AAAA)
			if a.Is4In6() {
				return netip.Addr{}
			}
		}
	}
	return a.Unmap()
}

// public reports whether an address may be where a name is on the internet. What an allowed name's owner says of this host's own networks would be a way around the policy.
func public(a netip.Addr) bool {
	if !a.IsValid() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return false
	}
	for _, p := range reserved() {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// reserved are the ranges that lead to no public host, beside those that every program knows: this network, carriers' NAT, class E, and what embeds IPv4 addresses in IPv6 ones.
func reserved() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{0, 0, 0, 0}), 8),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{240, 0, 0, 0}), 4),
		netip.PrefixFrom(netip.IPv6Unspecified(), 96),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x00, 0x64, 0xff, 0x9b}), 96),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x02}), 16),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0xc0}), 10),
	}
}
