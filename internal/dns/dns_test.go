package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"banger/internal/network"
	"banger/internal/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zone has the VMs of a test, of which those that are named "off" do not run.
type zone struct {
	guests []network.Guest
	err    error
}

func (z *zone) Named(_ context.Context, name string) (vm.Lease, bool, error) {
	for _, g := range z.guests {
		if g.Name == name && name != "off" {
			l := vm.Lease{Address: netip.PrefixFrom(g.Address, 22)}
			if g.Address6.IsValid() {
				l.Address6 = netip.PrefixFrom(g.Address6, 64)
			}
			return l, true, z.err
		}
	}
	return vm.Lease{}, false, z.err
}

func (z *zone) At(_ context.Context, a netip.Addr) (network.Guest, bool, error) {
	for _, g := range z.guests {
		if g.Address == a || g.Address6 == a {
			return g, true, z.err
		}
	}
	return network.Guest{}, false, z.err
}

func (z *zone) Subnets() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.223.0.0/22"), netip.MustParsePrefix("fd00:ba::/64")}
}

// learned is a firewall that fails on demand.
type learned struct {
	told []string
	err  error
}

func (l *learned) Learn(_ context.Context, tap, name string, addrs []netip.Addr, ttl time.Duration) error {
	l.told = append(l.told, fmt.Sprintf("%s %s %v %s", tap, name, addrs, ttl))
	return l.err
}

// world is a server with its surroundings.
type world struct {
	*Server
	zone    *zone
	learned *learned
	refused []string
	asked   []string
	says    []string // records that every question outside is answered with
	rcode   int
	err     error
}

const (
	dev      = "10.223.0.2"
	secret   = "10.223.0.3" // isolated
	listed   = "10.223.0.4"
	shut     = "10.223.0.5"
	stopped  = "10.223.0.6"
	gateway  = "10.223.0.1"
	loopback = "127.0.0.1"
)

func newWorld(t testing.TB) *world {
	t.Helper()
	allow, err := network.ParseAllow("example.com,*.example.com,198.51.100.0/24")
	if err != nil {
		t.Fatal(err)
	}
	guest := func(name, address string, p network.Policy) network.Guest {
		return network.Guest{ID: vm.ID(name), Name: name, TAP: "tap-" + name, Address: netip.MustParseAddr(address), Policy: p}
	}
	d := guest("dev", dev, network.Policy{Egress: network.EgressAll})
	d.Address6 = netip.MustParseAddr("fd00:ba::2")
	w := &world{learned: &learned{}, zone: &zone{guests: []network.Guest{
		d, guest("secret", secret, network.Policy{Egress: network.EgressAll, Isolated: true}),
		guest("listed", listed, network.Policy{Egress: network.EgressList, Allow: allow}),
		guest("shut", shut, network.Policy{Egress: network.EgressNone, Allow: allow}), guest("off", stopped, network.Policy{Egress: network.EgressAll}),
	}}}
	w.Server = New(Config{
		Zone: w.zone, Learner: w.learned, Log: slog.New(slog.DiscardHandler),
		Refused: func(g network.Guest, name string) { w.refused = append(w.refused, g.Name+" "+name) },
		Ask: func(_ context.Context, name string, qtype uint16) (*dns.Msg, error) {
			w.asked = append(w.asked, name+" "+dns.TypeToString[qtype])
			m := &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: w.rcode}}
			for _, line := range w.says {
				rr, err := dns.NewRR(line)
				if err != nil {
					t.Fatal(err)
				}
				m.Answer = append(m.Answer, rr)
			}
			return m, w.err
		},
	})
	t.Cleanup(w.Close)
	return w
}

// send asks what a packet says and unpacks the response; nil is none.
func (w *world) send(t testing.TB, packet []byte, from string, tcp bool) *dns.Msg {
	t.Helper()
	q := &query{from: netip.MustParseAddr(from), face: face{local: netip.MustParseAddr(gateway), guests: from != loopback, tcp: tcp}}
	if from == loopback {
		q.local = q.from
	}
	r, later := w.respond(packet, q)
	if later != nil {
		r = later()
	}
	out := r.pack(nil)
	if out == nil {
		return nil
	}
	if len(out) > r.limit {
		t.Errorf("%d bytes are more than %d", len(out), r.limit)
	}
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		t.Fatalf("the response cannot be read: %v", err)
	}
	return m
}

func (w *world) ask(t testing.TB, from, name, qtype string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.StringToType[qtype])
	m.SetEdns0(4096, false)
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got := w.send(t, packet, from, false)
	if got.Id != m.Id || !got.Response || got.Question[0] != m.Question[0] {
		t.Errorf("it answers %v", got)
	}
	return got
}

// sketch is what matters of a response, on one line.
func sketch(m *dns.Msg) string {
	out := dns.RcodeToString[m.Rcode]
	if m.Authoritative {
		out += " aa"
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		out += " |"
		for _, rr := range section {
			if s, ok := rr.(*dns.SOA); ok {
				out += fmt.Sprintf(" %s %d SOA %s %d", s.Hdr.Name, s.Hdr.Ttl, s.Ns, s.Minttl)
				continue
			}
			out += " " + strings.ReplaceAll(strings.ReplaceAll(rr.String(), "\tIN\t", " "), "\t", " ")
		}
	}
	return out
}

const none = " aa | | vm. 1 SOA vm. 1"

func TestNamesOfVMs(t *testing.T) {
	for _, c := range []struct{ from, name, qtype, want string }{
		{loopback, "dev.vm.", "A", "NOERROR aa | dev.vm. 5 A 10.223.0.2 |"},
		{loopback, "dev.vm.", "AAAA", "NOERROR aa | dev.vm. 5 AAAA fd00:ba::2 |"},
		{loopback, "DeV.vM.", "A", "NOERROR aa | DeV.vM. 5 A 10.223.0.2 |"},
		{loopback, "api.dev.vm.", "A", "NOERROR aa | api.dev.vm. 5 A 10.223.0.2 |"},
		{loopback, `a.*.x\.y.dev.vm.`, "A", `NOERROR aa | a.*.x\.y.dev.vm. 5 A 10.223.0.2 |`},
		{loopback, `x\.dev.vm.`, "A", "NXDOMAIN" + none},
		{loopback, "dev.vm.", "ANY", "NOERROR aa | dev.vm. 5 A 10.223.0.2 |"},
		{loopback, "dev.vm.", "MX", "NOERROR" + none},
		{loopback, "secret.vm.", "A", "NOERROR aa | secret.vm. 5 A 10.223.0.3 |"},
		{loopback, "secret.vm.", "AAAA", "NOERROR" + none},
		{loopback, "off.vm.", "A", "NXDOMAIN" + none},
		{loopback, "gone.vm.", "A", "NXDOMAIN" + none},
		{loopback, "api.gone.vm.", "AAAA", "NXDOMAIN" + none},
		{loopback, "vm.", "SOA", "NOERROR aa | vm. 5 SOA vm. 1 |"},
		{loopback, "vm.", "NS", "NOERROR aa | vm. 5 NS vm. |"},
		{loopback, "vm.", "A", "NOERROR aa | vm. 5 A 127.0.0.1 |"},
		{loopback, "vm.", "AAAA", "NOERROR" + none},
		{loopback, "vm.", "TXT", "NOERROR" + none},
		{loopback, "example.com.", "A", "REFUSED | |"},
		{loopback, "dev.xvm.", "A", "REFUSED | |"},
		{loopback, `dev\.vm.`, "A", "REFUSED | |"},
		{loopback, ".", "NS", "REFUSED | |"},

		{dev, "vm.", "A", "NOERROR aa | vm. 5 A 10.223.0.1 |"},
		{dev, "listed.vm.", "A", "NOERROR aa | listed.vm. 5 A 10.223.0.4 |"},
		{dev, "secret.vm.", "A", "NXDOMAIN" + none},
		{"fd00:ba::2", "listed.vm.", "A", "NOERROR aa | listed.vm. 5 A 10.223.0.4 |"},
		{secret, "secret.vm.", "A", "NOERROR aa | secret.vm. 5 A 10.223.0.3 |"},
		{secret, "dev.vm.", "A", "NXDOMAIN" + none},
		{shut, "dev.vm.", "A", "NOERROR aa | dev.vm. 5 A 10.223.0.2 |"},
		{stopped, "dev.vm.", "A", "NOERROR aa | dev.vm. 5 A 10.223.0.2 |"}, // while it boots it may ask
		{"10.223.0.99", "dev.vm.", "A", "REFUSED | |"},
		{gateway, "secret.vm.", "A", "NOERROR aa | secret.vm. 5 A 10.223.0.3 |"},
		{gateway, "example.com.", "A", "REFUSED | |"},
	} {
		if got := sketch(newWorld(t).ask(t, c.from, c.name, c.qtype)); got != c.want {
			t.Errorf("%s asks %s %s:\n got %s\nwant %s", c.from, c.name, c.qtype, got, c.want)
		}
	}
}

func TestAddressesOfVMs(t *testing.T) {
	const zone4, zone6 = "0.223.10.in-addr.arpa.", "0.0.0.0.0.0.0.0.a.b.0.0.0.0.d.f.ip6.arpa."
	const at6 = ".0.0.0.0.0.0.0.0.0.0.0.0.0.0.0." + zone6
	nothing := func(zone string) string { return " aa | | " + zone + " 1 SOA vm. 1" }
	for _, c := range []struct{ from, name, qtype, want string }{
		{loopback, "2." + zone4, "PTR", "NOERROR aa | 2.0.223.10.in-addr.arpa. 5 PTR dev.vm. |"},
		{loopback, "2.0.223.10.IN-ADDR.ARPA.", "ANY", "NOERROR aa | 2.0.223.10.IN-ADDR.ARPA. 5 PTR dev.vm. |"},
		{loopback, "2" + at6, "PTR", "NOERROR aa | 2" + at6 + " 5 PTR dev.vm. |"},
		{loopback, "2." + zone4, "A", "NOERROR" + nothing(zone4)},
		{loopback, "6." + zone4, "PTR", "NXDOMAIN" + nothing(zone4)}, // it does not run
		{loopback, "99." + zone4, "PTR", "NXDOMAIN" + nothing(zone4)},
		{loopback, "9.1.223.10.in-addr.arpa.", "PTR", "NXDOMAIN" + nothing("1.223.10.in-addr.arpa.")},
		{loopback, "9" + at6, "PTR", "NXDOMAIN" + nothing(zone6)},
		{loopback, "x.2." + zone4, "PTR", "NXDOMAIN" + nothing(zone4)},
		{loopback, "02." + zone4, "PTR", "NXDOMAIN" + nothing(zone4)},
		{loopback, "256." + zone4, "PTR", "NXDOMAIN" + nothing(zone4)},
		{loopback, "0.0." + zone6, "PTR", "NOERROR" + nothing(zone6)},
		{loopback, zone4, "SOA", "NOERROR aa | " + zone4 + " 5 SOA vm. 1 |"},
		{loopback, zone4, "NS", "NOERROR aa | " + zone4 + " 5 NS vm. |"},
		{loopback, zone4, "PTR", "NOERROR" + nothing(zone4)},
		{loopback, "2.4.223.10.in-addr.arpa.", "PTR", "REFUSED | |"},
		{loopback, "223.10.in-addr.arpa.", "NS", "REFUSED | |"},
		{loopback, "in-addr.arpa.", "NS", "REFUSED | |"},
		{loopback, "1.0.0.127.in-addr.arpa.", "PTR", "REFUSED | |"},

		{dev, "4." + zone4, "PTR", "NOERROR aa | 4.0.223.10.in-addr.arpa. 5 PTR listed.vm. |"},
		{dev, "3." + zone4, "PTR", "NXDOMAIN" + nothing(zone4)},
		{secret, "2." + zone4, "PTR", "NXDOMAIN" + nothing(zone4)},
		{secret, "3." + zone4, "PTR", "NOERROR aa | 3.0.223.10.in-addr.arpa. 5 PTR secret.vm. |"},
	} {
		if got := sketch(newWorld(t).ask(t, c.from, c.name, c.qtype)); got != c.want {
			t.Errorf("%s asks %s %s:\n got %s\nwant %s", c.from, c.name, c.qtype, got, c.want)
		}
	}
}

func TestNamesOutside(t *testing.T) {
	const a, aaaa = "example.com. 300 A 203.0.113.7", "example.com. 20 AAAA 2001:db8::7"
	const root = " | | . 1 SOA vm. 1"
	for name, c := range map[string]struct {
		from, name, qtype string
		says              []string
		rcode             int
		want              string
		asked             bool
		learned, refused  []string
	}{
		"all":                {dev, "Example.com.", "A", []string{a, aaaa}, 0, "NOERROR | example.com. 300 A 203.0.113.7 example.com. 20 AAAA 2001:db8::7 |", true, nil, nil},
		"all, private":       {dev, "example.com.", "A", []string{"example.com. 3 A 10.0.0.1"}, 0, "NOERROR | example.com. 3 A 10.0.0.1 |", true, nil, nil},
		"all, NXDOMAIN":      {dev, "example.com.", "A", nil, dns.RcodeNameError, "NXDOMAIN | |", true, nil, nil},
		"listed":             {listed, "EXAMPLE.com.", "A", []string{a, aaaa}, 0, "NOERROR | example.com. 300 A 203.0.113.7 |", true, []string{"tap-listed example.com [203.0.113.7] 5m30s"}, nil},
		"listed, AAAA":       {listed, "example.com.", "AAAA", []string{a, aaaa}, 0, "NOERROR | example.com. 20 AAAA 2001:db8::7 |", true, []string{"tap-listed example.com [2001:db8::7] 1m0s"}, nil},
		"listed, below":      {listed, "a.b.example.com.", "A", []string{"A.b.example.com. 300 A 203.0.113.7"}, 0, "NOERROR | A.b.example.com. 300 A 203.0.113.7 |", true, []string{"tap-listed a.b.example.com [203.0.113.7] 5m30s"}, nil},
		"listed, not":        {listed, "evil.org.", "A", []string{a}, 0, "NXDOMAIN" + root, false, nil, []string{"listed evil.org"}},
		"listed, not, PTR":   {listed, "7.113.0.203.in-addr.arpa.", "PTR", nil, 0, "NXDOMAIN" + root, false, nil, []string{"listed 7.113.0.203.in-addr.arpa"}},
		"listed, TXT":        {listed, "example.com.", "TXT", []string{`example.com. 300 TXT "a tunnel"`}, 0, "NOERROR" + root, false, nil, nil},
		"listed, ANY":        {listed, "example.com.", "ANY", []string{a}, 0, "NOERROR" + root, false, nil, nil},
		"none":               {shut, "example.com.", "A", []string{a}, 0, "NXDOMAIN" + root, false, nil, []string{"shut example.com"}},
		"listed, SERVFAIL":   {listed, "example.com.", "A", nil, dns.RcodeServerFailure, "SERVFAIL | |", true, nil, nil},
		"listed, NXDOMAIN":   {listed, "example.com.", "A", nil, dns.RcodeNameError, "NXDOMAIN" + root, true, nil, nil},
		"listed, by CNAMEs":  {listed, "example.com.", "A", []string{"cdn.net. 9 CNAME e.cdn.net.", "e.cdn.net. 300 A 203.0.113.8", "example.com. 300 CNAME CDN.net."}, 0, "NOERROR | example.com. 300 CNAME CDN.net. cdn.net. 9 CNAME e.cdn.net. e.cdn.net. 300 A 203.0.113.8 |", true, []string{"tap-listed example.com [203.0.113.8] 1m0s"}, nil},
		"listed, others'":    {listed, "example.com.", "A", []string{a, "bank.com. 300 A 203.0.113.9"}, 0, "NOERROR | example.com. 300 A 203.0.113.7 |", true, []string{"tap-listed example.com [203.0.113.7] 5m30s"}, nil},
		"listed, CNAME loop": {listed, "example.com.", "A", []string{"example.com. 300 CNAME example.com."}, 0, "NOERROR" + root, true, nil, nil},
		"listed, private":    {listed, "example.com.", "A", []string{"example.com. 300 A 192.168.1.1", a, "example.com. 300 A 100.64.0.1"}, 0, "NOERROR | example.com. 300 A 203.0.113.7 |", true, []string{"tap-listed example.com [203.0.113.7] 5m30s"}, nil},
		"listed, only that":  {listed, "example.com.", "A", []string{"example.com. 300 A 10.223.0.2"}, 0, "NOERROR" + root, true, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.says, w.rcode = c.says, c.rcode
			got := w.ask(t, c.from, c.name, c.qtype)
			if s := sketch(got); s != c.want {
				t.Errorf("\n got %s\nwant %s", s, c.want)
			}
			if !got.RecursionAvailable {
				t.Error("it does not say that it asks others")
			}
			var asked []string
			if c.asked {
				asked = []string{strings.ToLower(c.name) + " " + c.qtype}
			}
			if !slices.Equal(w.asked, asked) || !slices.Equal(w.learned.told, c.learned) || !slices.Equal(w.refused, c.refused) {
				t.Errorf("asked %q, learned %q, refused %q", w.asked, w.learned.told, w.refused)
			}
			if c.refused != nil {
				e, ok := got.IsEdns0().Option[0].(*dns.EDNS0_EDE)
				if !ok || e.InfoCode != dns.ExtendedErrorCodeBlocked || !strings.Contains(e.ExtraText, "egress policy") {
					t.Errorf("it says %v", got.IsEdns0())
				}
			}
		})
	}
}

func TestAnswersThatCannotBeGiven(t *testing.T) {
	w := newWorld(t)
	w.says, w.learned.err = []string{"example.com. 300 A 203.0.113.7"}, errors.New("the firewall has gone")
	if got := sketch(w.ask(t, listed, "example.com.", "A")); got != "SERVFAIL | |" {
		t.Errorf("what was not learned: %s", got)
	}
	w.err = errors.New("nobody answers")
	if got := sketch(w.ask(t, dev, "example.com.", "A")); got != "SERVFAIL | |" {
		t.Errorf("without resolvers: %s", got)
	}
	w.zone.err = errors.New("the database has gone")
	for _, name := range []string{"dev.vm.", "2.0.223.10.in-addr.arpa."} {
		if got := w.ask(t, loopback, name, "A"); got.Rcode != dns.RcodeServerFailure || len(got.Answer) > 0 {
			t.Errorf("without a store: %v", got)
		}
	}
	if got := w.ask(t, dev, "example.com.", "A"); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("without a store: %v", got)
	}
}

// TestAGuestTakesNotAllPlaces: what waits for the host's resolvers is bounded, for each guest and for all.
func TestAGuestTakesNotAllPlaces(t *testing.T) {
	w := newWorld(t)
	for range maxWaitingEach {
		if !w.enter(netip.MustParseAddr(dev)) {
			t.Fatal("there is no place")
		}
	}
	if got := sketch(w.ask(t, dev, "example.com.", "A")); got != "SERVFAIL | |" {
		t.Errorf("one more: %s", got)
	}
	if got := sketch(w.ask(t, listed, "example.com.", "A")); !strings.HasPrefix(got, "NOERROR") {
		t.Errorf("another guest: %s", got)
	}
	for range maxWaitingEach {
		w.exit(netip.MustParseAddr(dev))
	}
	if got := sketch(w.ask(t, dev, "example.com.", "A")); !strings.HasPrefix(got, "NOERROR") || len(w.waiting) > 0 {
		t.Errorf("afterwards: %s, %v", got, w.waiting)
	}
}

func TestAGuestThatAsksTooMuchWaits(t *testing.T) {
	s := New(Config{})
	from, other := netip.MustParseAddr(dev), netip.MustParseAddr(shut)
	for range maxAsked {
		if !s.admit(from, 7) {
			t.Fatal("not admitted")
		}
	}
	if s.admit(from, 7) || !s.admit(other, 7) || !s.admit(from, 8) {
		t.Error("another guest waits too, or longer than a second, or it does not wait")
	}
}

func TestRefusedNamesAreToldOfInMeasure(t *testing.T) {
	s := newWorld(t)
	from, told := netip.MustParseAddr(listed), 0
	for i := range 3 * maxTold {
		for range 2 { // A and AAAA
			if s.news(from, fmt.Sprintf("evil%d.org", i), 7) {
				told++
			}
		}
	}
	if told != maxTold {
		t.Errorf("in one second it tells of %d", told)
	}
	if !s.news(from, "evil0.org", 8) || s.news(from, "evil0.org", 8) || !s.news(netip.MustParseAddr(shut), "evil0.org", 8) {
		t.Error("it tells not of the next second, or of another guest")
	}
}

func TestPublicAddresses(t *testing.T) {
	for _, a := range []string{"203.0.113.7", "8.8.8.8", "198.51.100.1", "2001:db8::1", "2606:4700::1"} {
		if !public(netip.MustParseAddr(a)) {
			t.Errorf("%s is refused", a)
		}
	}
	for _, a := range []string{
		"10.1.2.3", "172.16.0.1", "192.168.0.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "100.127.255.255", "224.0.0.1", "0.0.0.0", "0.1.2.3",
		"255.255.255.255", "::", "::1", "fe80::1", "fd00::1", "fc00::1", "ff02::1", "fec0::1", "::10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1",
	} {
		if public(netip.MustParseAddr(a)) {
			t.Errorf("%s is let through", a)
		}
	}
	if public(addressOf(&dns.AAAA{AAAA: netip.MustParseAddr("::ffff:10.0.0.1").AsSlice()}, dns.TypeAAAA)) {
		t.Error("an embedded address is let through")
	}
}

func TestQueriesThatAreNone(t *testing.T) {
	w := newWorld(t)
	raw := func(change func(*dns.Msg)) []byte {
		m := new(dns.Msg).SetQuestion("dev.vm.", dns.TypeA)
		change(m)
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return packet
	}
	good := raw(func(*dns.Msg) {})
	opt := func(version uint8) *dns.OPT {
		o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: 4096}}
		o.SetVersion(version)
		return o
	}
	for name, c := range map[string]struct {
		packet []byte
		want   int // -1 is no response
	}{
		"good":           {good, dns.RcodeSuccess},
		"empty":          {nil, -1},
		"short":          {good[:11], -1},
		"a response":     {raw(func(m *dns.Msg) { m.Response = true }), -1},
		"cut off":        {good[:15], dns.RcodeFormatError},
		"no question":    {raw(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		"two questions":  {raw(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		"an answer":      {raw(func(m *dns.Msg) { m.Answer = address("dev.vm.", netip.MustParseAddr(dev)) }), dns.RcodeFormatError},
		"a class":        {raw(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		"any class":      {raw(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		"a transfer":     {raw(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		"a notification": {raw(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		"an update":      {raw(func(m *dns.Msg) { m.SetUpdate("vm.") }), dns.RcodeNotImplemented},
		"a cut opcode":   {raw(func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus })[:15], dns.RcodeNotImplemented},
		"EDNS":           {raw(func(m *dns.Msg) { m.Extra = []dns.RR{opt(0)} }), dns.RcodeSuccess},
		"EDNS 1":         {raw(func(m *dns.Msg) { m.Extra = []dns.RR{opt(1)} }), dns.RcodeBadVers},
		"EDNS twice":     {raw(func(m *dns.Msg) { m.Extra = []dns.RR{opt(0), opt(0)} }), dns.RcodeFormatError},
	} {
		got := -1
		m := w.send(t, c.packet, loopback, false)
		if m != nil {
			if got = m.Rcode; m.Id != uint16(c.packet[0])<<8|uint16(c.packet[1]) {
				t.Errorf("%s: its id is %d", name, m.Id)
			}
			if o := m.IsEdns0(); (o != nil) != strings.HasPrefix(name, "EDNS") || o != nil && (o.UDPSize() != maxUDP || o.Version() != 0) {
				t.Errorf("%s: it says %v", name, o)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestLongAnswersAreCut(t *testing.T) {
	w := newWorld(t)
	for i := range 200 {
		w.says = append(w.says, fmt.Sprintf("example.com. 300 A 203.0.113.%d", i))
	}
	for _, c := range []struct {
		edns, want int // answers at most this long
		tcp        bool
	}{{0, 512, false}, {100, 512, false}, {1000, 1000, false}, {65535, maxUDP, false}, {0, 65535, true}} {
		m := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
		if c.edns > 0 {
			m.SetEdns0(uint16(c.edns), false)
		}
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got := w.send(t, packet, dev, c.tcp)
		got.Compress = true
		if n := got.Len(); got.Truncated == c.tcp || n > c.want || !c.tcp && n < c.want-100 || c.tcp && len(got.Answer) != 200 {
			t.Errorf("for %+v it is %d long, truncated %v", c, n, got.Truncated)
		}
	}
}

// FuzzRespond holds that whatever comes is answered by a proper response or not at all.
func FuzzRespond(f *testing.F) {
	for _, q := range []struct {
		name  string
		qtype uint16
	}{{"dev.vm.", dns.TypeA}, {`a\.b\000.dev.vm.`, dns.TypeAAAA}, {"2.0.223.10.in-addr.arpa.", dns.TypePTR}, {"example.com.", dns.TypeA}, {"evil.org.", dns.TypeANY}} {
		m := new(dns.Msg).SetQuestion(q.name, q.qtype)
		m.SetEdns0(512, true)
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
		f.Add(packet[:len(packet)/2])
		packet[12] = 0xc0 // a pointer to nowhere
		f.Add(packet)
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01")) // a name that points to itself
	f.Fuzz(func(t *testing.T, packet []byte) {
		w := newWorld(t)
		w.says = []string{"example.com. 300 A 203.0.113.7"}
		for _, from := range []string{loopback, dev, listed, shut, secret} {
			for _, tcp := range []bool{false, true} {
				if m := w.send(t, packet, from, tcp); m != nil && !m.Response {
					t.Errorf("it answers by a query: %v", m)
				}
			}
		}
	})
}
