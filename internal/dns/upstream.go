package dns

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"banger/internal/fault"
)

// Bounds of what is asked of the host's resolvers, and of what is kept of their answers.
const (
	attempt   = 1500 * time.Millisecond // until the next one is asked
	rounds    = 2
	maxTTL    = time.Hour
	maxCached = 2048
	maxKept   = 4096 // bytes of an answer
)

// Upstream asks the host's resolvers.
type Upstream struct {
	Servers func() []netip.AddrPort

	mu     sync.Mutex
	cached map[key]entry
}

type key struct {
	name  string
	qtype uint16
}

type entry struct {
	msg   *dns.Msg
	at    time.Time
	until time.Time
}

// Ask returns an answer, which is the caller's. What is asked is a query of our own: nothing of it is the guest's but name and type.
func (u *Upstream) Ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	k := key{name, qtype}
	if m := u.recall(k, time.Now()); m != nil {
		return m, nil
	}
	servers := u.Servers()
	if len(servers) == 0 {
		return nil, fault.New(fault.Unavailable, "this host has no resolver").WithOp("resolve", name).WithHint("name one in /etc/resolv.conf")
	}
	var worse *dns.Msg // a server's word that it cannot say
	var errs []error
	for range rounds {
		for _, server := range servers {
			m, err := exchange(ctx, server, name, qtype)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			switch {
			case err != nil:
				errs = append(errs, err)
			case m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError:
				return u.keep(k, m, time.Now()), nil
			default:
				worse = m
			}
		}
		if worse != nil { // somebody is there, and will say the same again
			return worse, nil
		}
	}
	return nil, errors.Join(errs...)
}

// exchange asks one server, by TCP where the answer is too long for a datagram. The socket is made for this query, so that its port is as
// random as its id is.
func exchange(ctx context.Context, server netip.AddrPort, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(name, qtype)
	q.SetEdns0(maxUDP, false)
	c := dns.Client{Net: "udp", UDPSize: maxUDP, Timeout: attempt}
	m, _, err := c.ExchangeContext(ctx, q, server.String())
	if err == nil && m.Rcode == dns.RcodeFormatError { // a server from before EDNS
		q.Extra = nil
		m, _, err = c.ExchangeContext(ctx, q, server.String())
	}
	if err == nil && m.Truncated {
		c.Net = "tcp"
		m, _, err = c.ExchangeContext(ctx, q, server.String())
	}
	switch {
	case err != nil:
		return nil, err
	case !m.Response || len(m.Question) != 1 || !sameName(m.Question[0].Name, name) || m.Question[0].Qtype != qtype:
		return nil, fault.New(fault.Unavailable, "it answers another question").WithOp("ask resolver", server.String())
	}
	return clean(m), nil
}

func sameName(a, b string) bool { return dns.CanonicalName(a) == dns.CanonicalName(b) }

// clean leaves of an answer what concerns whoever asked, with bounded TTLs.
func clean(m *dns.Msg) *dns.Msg {
	m.Extra = nil
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			rr.Header().Ttl = min(rr.Header().Ttl, uint32(maxTTL/time.Second))
		}
	}
	return m
}

// recall returns what is kept, with the time that has passed taken from its TTLs.
func (u *Upstream) recall(k key, now time.Time) *dns.Msg {
	u.mu.Lock()
	e, ok := u.cached[k]
	u.mu.Unlock()
	if !ok || !now.Before(e.until) {
		return nil
	}
	m := e.msg.Copy()
	age := uint32(now.Sub(e.at) / time.Second)
	for _, rr := range m.Answer {
		rr.Header().Ttl -= age // it is over before any of them reaches 0
	}
	return m
}

// keep keeps a copy of an answer that says where something is, for as long as it may be kept.
func (u *Upstream) keep(k key, m *dns.Msg, now time.Time) *dns.Msg {
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 || m.Truncated {
		return m
	}
	least := m.Answer[0].Header().Ttl
	for _, rr := range m.Answer {
		least = min(least, rr.Header().Ttl)
	}
	if least == 0 || m.Len() > maxKept {
		return m
	}
	kept := m.Copy()
	kept.Ns = nil
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cached == nil {
		u.cached = map[key]entry{}
	}
	for other := range u.cached { // any one goes: what is asked for again comes back
		if len(u.cached) < maxCached {
			break
		}
		delete(u.cached, other)
	}
	u.cached[k] = entry{kept, now, now.Add(time.Duration(least) * time.Second)}
	return m
}
