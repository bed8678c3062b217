package dns

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"banger/internal/network"
)

// Domain is what VMs have their names in.
const Domain = network.Domain + "."

// TTLs in seconds. What follows a VM's life may not be kept for long, least of all that there is none.
const (
	ttl      = 5
	negative = 1
)

// answer fills in the response to a query, or returns what is to be called to have it filled in.
func (s *Server) answer(m *dns.Msg, q *query) (wait func()) {
	a, ok := s.asker(m, q)
	if !ok {
		return nil
	}
	if within(q.name) {
		s.forward(m, q, a)
		return nil
	}
	switch at, zone, kind := s.reverse(q.name); {
	case kind != foreign:
		s.backward(m, q, a, at, zone, kind)
	case a.host:
		m.Rcode = dns.RcodeRefused
	default:
		return s.outside(m, q, a.guest)
	}
	return nil
}

// asker is who wants to know.
type asker struct {
	host  bool
	guest network.Guest // where it is not the host
}

// asker finds out; false says that the answer to it is ready.
func (s *Server) asker(m *dns.Msg, q *query) (asker, bool) {
	if !q.guests || q.from == q.local || q.from.IsLoopback() {
		return asker{host: true}, true
	}
	g, ok, err := s.Zone.At(s.ctx, q.from)
	switch {
	case err != nil:
		s.fail(m, q, err)
		return asker{}, false
	case !ok:
		m.Rcode = dns.RcodeRefused
		return asker{}, false
	}
	return asker{guest: g}, true
}

func (s *Server) fail(m *dns.Msg, q *query, err error) {
	s.Log.Warn("answer a DNS query", "name", q.name, "from", q.from, "error", err)
	m.Rcode = dns.RcodeServerFailure
}

// knows reports whether the VM at an address may be known to whoever asks: what cannot be reached is not told of.
func (s *Server) knows(a asker, at netip.Addr) (bool, error) {
	if a.host || at == a.guest.Address || at == a.guest.Address6 {
		return true, nil
	}
	if a.guest.Policy.Isolated {
		return false, nil
	}
	other, ok, err := s.Zone.At(s.ctx, at)
	return ok && !other.Policy.Isolated, err
}

func within(name string) bool {
	if !strings.HasSuffix(name, Domain) {
		return false
	}
	return name == Domain || dns.IsSubDomain(Domain, name)
}

// forward answers for names of VMs.
func (s *Server) forward(m *dns.Msg, q *query, a asker) {
	m.Authoritative = true
	asked := m.Question[0]
	if q.name == Domain {
		s.apex(m, q)
		return
	}
	l, ok, err := s.Zone.Named(s.ctx, owner(q.name))
	if err == nil && ok {
		ok, err = s.knows(a, l.Address.Addr())
	}
	switch {
	case err != nil:
		s.fail(m, q, err)
		return
	case !ok:
		m.Rcode = dns.RcodeNameError
	case asked.Qtype == dns.TypeA, asked.Qtype == dns.TypeANY: // RFC 8482 has ANY answered with any one
		m.Answer = address(asked.Name, l.Address.Addr())
	case asked.Qtype == dns.TypeAAAA:
		m.Answer = address(asked.Name, l.Address6.Addr())
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa(Domain, negative)}
	}
}

// owner is the label of the VM that a name below the domain belongs to: its last one.
func owner(name string) string {
	if strings.Contains(name, `\`) { // a dot in it may be none
		labels := dns.SplitDomainName(name)
		return labels[len(labels)-2]
	}
	name = strings.TrimSuffix(name, "."+Domain)
	return name[strings.LastIndexByte(name, '.')+1:]
}

// apex answers for the domain itself, whose server is where it was asked.
func (s *Server) apex(m *dns.Msg, q *query) {
	asked := m.Question[0]
	switch asked.Qtype {
	case dns.TypeSOA, dns.TypeANY:
		m.Answer = []dns.RR{soa(Domain, ttl)}
	case dns.TypeNS:
		m.Answer = []dns.RR{ns(Domain)}
		m.Extra = append(address(Domain, q.local), m.Extra...)
	case dns.TypeA, dns.TypeAAAA:
		if (asked.Qtype == dns.TypeA) == q.local.Is4() {
			m.Answer = address(asked.Name, q.local)
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa(Domain, negative)}
	}
}

// Kinds of names in the reverse trees.
const (
	foreign = iota // of no subnet of ours, or in no such tree
	apex           // the name of a zone
	between        // between a zone's and an address's
	whole          // an address
	beyond         // no name of any address
)

// reverse reads a name of the reverse trees: the address, and the name of the zone of ours that it is in.
func (s *Server) reverse(name string) (at netip.Addr, zone string, kind int) {
	const tree4, tree6 = ".in-addr.arpa.", ".ip6.arpa."
	tree, unit, base := tree4, 8, 10
	rest, ok := strings.CutSuffix(name, tree4)
	if !ok {
		if rest, ok = strings.CutSuffix(name, tree6); !ok {
			return at, "", foreign
		}
		tree, unit, base = tree6, 4, 16
	}
	labels := strings.Split(rest, ".")
	var raw [16]byte
	size := 128
	if tree == tree4 {
		size = 32
	}
	bits := 0
	for i := len(labels) - 1; i >= 0 && bits < size; i-- {
		n, err := strconv.ParseUint(labels[i], base, unit)
		if err != nil || strconv.FormatUint(n, base) != labels[i] {
			break
		}
		raw[bits/8] |= byte(n) << (8 - unit - bits%8)
		bits += unit
	}
	at = netip.AddrFrom16(raw)
	if size == 32 {
		at = netip.AddrFrom4([4]byte(raw[:4]))
	}
	for _, p := range s.Zone.Subnets() {
		cut := (p.Bits() + unit - 1) / unit * unit // zones begin where labels do
		if !p.Contains(at) || bits < cut {
			continue
		}
		zone = strings.Join(labels[len(labels)-cut/unit:], ".") + tree
		switch n := len(labels) * unit; {
		case n != bits:
			return at, zone, beyond
		case n == size:
			return at, zone, whole
		case n == cut:
			return at, zone, apex
		}
		return at, zone, between
	}
	return at, "", foreign
}

// backward answers for addresses of VMs.
func (s *Server) backward(m *dns.Msg, q *query, a asker, at netip.Addr, zone string, kind int) {
	m.Authoritative = true
	asked := m.Question[0]
	switch kind {
	case whole:
		name, err := s.nameOf(a, at)
		switch {
		case err != nil:
			s.fail(m, q, err)
			return
		case name == "":
			m.Rcode = dns.RcodeNameError
		case asked.Qtype == dns.TypePTR, asked.Qtype == dns.TypeANY:
			m.Answer = []dns.RR{&dns.PTR{Hdr: header(asked.Name, dns.TypePTR, ttl), Ptr: name + "." + Domain}}
		}
	case beyond:
		m.Rcode = dns.RcodeNameError
	case apex:
		switch asked.Qtype {
		case dns.TypeSOA, dns.TypeANY:
			m.Answer = []dns.RR{soa(zone, ttl)}
		case dns.TypeNS:
			m.Answer = []dns.RR{ns(zone)}
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa(zone, negative)}
	}
}

// nameOf is the name of the VM that has an address, runs, and may be known; else "".
func (s *Server) nameOf(a asker, at netip.Addr) (string, error) {
	g, ok, err := s.Zone.At(s.ctx, at)
	if err != nil || !ok {
		return "", err
	}
	if _, ok, err = s.Zone.Named(s.ctx, g.Name); err != nil || !ok {
		return "", err
	}
	if ok, err = s.knows(a, at); err != nil || !ok {
		return "", err
	}
	return g.Name, nil
}

func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// address is a record of an address; none of one that is not valid.
func address(name string, a netip.Addr) []dns.RR {
	switch {
	case !a.IsValid():
		return nil
	case a.Is4():
		return []dns.RR{&dns.A{Hdr: header(name, dns.TypeA, ttl), A: a.AsSlice()}}
	}
	return []dns.RR{&dns.AAAA{Hdr: header(name, dns.TypeAAAA, ttl), AAAA: a.AsSlice()}}
}

func ns(zone string) dns.RR { return &dns.NS{Hdr: header(zone, dns.TypeNS, ttl), Ns: Domain} }

// soa says how long it may be kept that something is not there. Nobody fetches the zone as a whole, so its serial says nothing.
func soa(zone string, ttl uint32) dns.RR {
	return &dns.SOA{Hdr: header(zone, dns.TypeSOA, ttl), Ns: Domain, Mbox: "hostmaster." + Domain, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: negative}
}
