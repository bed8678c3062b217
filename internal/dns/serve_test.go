package dns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func udp(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func tcpOf(t *testing.T, address string) *net.TCPListener {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServe(t *testing.T) {
	w := newWorld(t)
	c, l := udp(t), tcpOf(t, "127.0.0.1:0")
	stopUDP, stopTCP := w.ServeUDP(c, false), w.ServeTCP(l, false)
	for network, address := range map[string]string{"udp": c.LocalAddr().String(), "tcp": l.Addr().String()} {
		client := dns.Client{Net: network, Timeout: 20 * time.Second}
		for range 3 {
			m, _, err := client.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion("dev.vm.", dns.TypeA), address)
			if err != nil || sketch(m) != "NOERROR aa | dev.vm. 5 A 10.223.0.2 |" {
				t.Errorf("%s: %v, %v", network, m, err)
			}
		}
	}

	// A connection carries many queries, and ends with what is none.
	conn := dial(t, l)
	d := dns.Conn{Conn: conn}
	for range 3 {
		if err := d.WriteMsg(new(dns.Msg).SetQuestion("dev.vm.", dns.TypeAAAA)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if m, err := d.ReadMsg(); err != nil || len(m.Answer) != 1 {
			t.Errorf("%v, %v", m, err)
		}
	}
	if _, err := conn.Write([]byte{0, 3, 'x', 'y', 'z'}); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("it says %d bytes, %v", n, err)
	}

	open := dial(t, l)
	stopUDP()
	stopTCP()
	if n, err := open.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection that is idle outlives the server: %d bytes, %v", n, err)
	}
	if _, err := c.Write(nil); err == nil {
		t.Error("its socket is open")
	}
}

// TestWhatIsUnderWayIsAnswered stops a server while the host's resolvers have not answered.
func TestWhatIsUnderWayIsAnswered(t *testing.T) {
	w := newWorld(t)
	asked, release := make(chan struct{}), make(chan struct{})
	w.Ask = func(context.Context, string, uint16) (*dns.Msg, error) {
		asked <- struct{}{}
		<-release
		return &dns.Msg{Answer: []dns.RR{&dns.A{Hdr: header("example.com.", dns.TypeA, 3), A: net.IPv4(203, 0, 113, 7)}}}, nil
	}
	c := udp(t)
	stop := w.ServeUDP(guestly{c}, true)
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := dns.Conn{Conn: conn}
	if err := client.WriteMsg(new(dns.Msg).SetQuestion("example.com.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	<-asked
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	close(release)
	if m, err := client.ReadMsg(); err != nil || len(m.Answer) != 1 {
		t.Errorf("%v, %v", m, err)
	}
	<-stopped
}

// guestly is a socket of the loopback on which everybody has the address of the VM dev.
type guestly struct{ *net.UDPConn }

func (g guestly) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := g.UDPConn.ReadFromUDPAddrPort(b)
	return n, netip.AddrPortFrom(netip.MustParseAddr(dev), from.Port()), err
}

func (g guestly) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return g.UDPConn.WriteToUDPAddrPort(b, netip.AddrPortFrom(netip.MustParseAddr(loopback), to.Port()))
}

func TestConnectionsAreBounded(t *testing.T) {
	l := tcpOf(t, "127.0.0.1:0")
	stop := newWorld(t).ServeTCP(l, false)
	defer stop()
	for range maxConns {
		d := dns.Conn{Conn: dial(t, l)}
		if err := d.WriteMsg(new(dns.Msg).SetQuestion("dev.vm.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ReadMsg(); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := dial(t, l).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one more: %d bytes, %v", n, err)
	}
}

// resolver is one of the host's, which counts what it is asked and answers by a function.
func resolver(t *testing.T, answer func(q *dns.Msg, tcp bool) *dns.Msg) netip.AddrPort {
	t.Helper()
	c := udp(t)
	l := tcpOf(t, c.LocalAddr().String())
	handler := func(tcp bool) dns.Handler {
		return dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			if m := answer(q, tcp); m != nil {
				_ = w.WriteMsg(m)
			}
		})
	}
	for _, s := range []*dns.Server{{PacketConn: c, Handler: handler(false)}, {Listener: l, Handler: handler(true)}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			_ = s.ActivateAndServe()
			close(ended)
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

func saying(q *dns.Msg, lines ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

func TestUpstream(t *testing.T) {
	const name, record = "example.com.", "example.com. 86400 A 203.0.113.7"
	good := func(q *dns.Msg, _ bool) *dns.Msg { return saying(q, record) }
	rcode := func(code int) func(*dns.Msg, bool) *dns.Msg {
		return func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
	}
	for what, c := range map[string]struct {
		servers []func(*dns.Msg, bool) *dns.Msg
		want    string // "" is a failure
	}{
		"one":          {[]func(*dns.Msg, bool) *dns.Msg{good}, "NOERROR | example.com. 3600 A 203.0.113.7 |"},
		"none":         {nil, ""},
		"second":       {[]func(*dns.Msg, bool) *dns.Msg{rcode(dns.RcodeServerFailure), good}, "NOERROR | example.com. 3600 A 203.0.113.7 |"},
		"no such name": {[]func(*dns.Msg, bool) *dns.Msg{rcode(dns.RcodeNameError), good}, "NXDOMAIN | |"},
		"both refuse":  {[]func(*dns.Msg, bool) *dns.Msg{rcode(dns.RcodeRefused), rcode(dns.RcodeServerFailure)}, "SERVFAIL | |"},
		"an old one": {[]func(*dns.Msg, bool) *dns.Msg{func(q *dns.Msg, _ bool) *dns.Msg {
			if q.IsEdns0() != nil {
				return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
			}
			return saying(q, record)
		}}, "NOERROR | example.com. 3600 A 203.0.113.7 |"},
		"too long": {[]func(*dns.Msg, bool) *dns.Msg{func(q *dns.Msg, tcp bool) *dns.Msg {
			m := saying(q)
			if m.Truncated = !tcp; tcp {
				m = saying(q, record)
			}
			return m
		}}, "NOERROR | example.com. 3600 A 203.0.113.7 |"},
		"another question": {[]func(*dns.Msg, bool) *dns.Msg{func(q *dns.Msg, _ bool) *dns.Msg {
			m := saying(q, record)
			m.Question[0].Name = "bank.com."
			return m
		}}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			var servers []netip.AddrPort
			for _, answer := range c.servers {
				servers = append(servers, resolver(t, answer))
			}
			u := Upstream{Servers: func() []netip.AddrPort { return servers }}
			got := ""
			m, err := u.Ask(t.Context(), name, dns.TypeA)
			if err == nil {
				got = sketch(m)
			}
			if got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestAnswersAreKeptAsLongAsTheyHold(t *testing.T) {
	var asked atomic.Int64
	server := resolver(t, func(q *dns.Msg, _ bool) *dns.Msg {
		asked.Add(1)
		if q.Question[0].Name == "gone.com." {
			return new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		}
		return saying(q, q.Question[0].Name+" 30 CNAME a.net.", "a.net. 100 A 203.0.113.7")
	})
	u := Upstream{Servers: func() []netip.AddrPort { return []netip.AddrPort{server} }}
	for range 3 {
		if m, err := u.Ask(t.Context(), "example.com.", dns.TypeA); err != nil || len(m.Answer) != 2 {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("it asked %d times", asked.Load())
	}
	k, now := key{"example.com.", dns.TypeA}, time.Now()
	if m := u.recall(k, now.Add(20*time.Second)); m == nil || m.Answer[0].Header().Ttl > 10 || m.Answer[1].Header().Ttl > 80 {
		t.Errorf("after 20 seconds: %v", m)
	}
	if m := u.recall(k, now.Add(31*time.Second)); m != nil {
		t.Errorf("after 31 seconds: %v", m)
	}
	for range 2 {
		if m, err := u.Ask(t.Context(), "gone.com.", dns.TypeA); err != nil || m.Rcode != dns.RcodeNameError {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if asked.Load() != 3 {
		t.Errorf("it asked %d times", asked.Load())
	}
	for i := range uint16(maxCached) {
		u.keep(key{"a.", i}, saying(new(dns.Msg).SetQuestion("a.", i), "a. 30 A 203.0.113.7"), now)
	}
	if len(u.cached) != maxCached {
		t.Errorf("it keeps %d", len(u.cached))
	}
}

func TestTheHostsResolvers(t *testing.T) {
	dir := t.TempDir()
	r := ResolvConf{Path: filepath.Join(dir, "resolv.conf"), Stub: filepath.Join(dir, "stub.conf"), Own: func(a netip.AddrPort) bool {
		return a.Addr() == netip.MustParseAddr(gateway)
	}}
	for _, c := range []struct{ conf, stub, want string }{
		{"", "", ""},
		{"nameserver 192.0.2.1\n", "", "192.0.2.1:53"},
		{"# x\nsearch a.b\nnameserver 192.0.2.1 # one\n nameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver\nnameserver x\nNameserver 192.0.2.9\n", "nameserver 192.0.2.7", "192.0.2.1:53 [2001:db8::1]:53 [fe80::1%eth0]:53"},
		{"nameserver 127.0.0.53\noptions edns0\n", "nameserver 192.0.2.7\n", "192.0.2.7:53"},
		{"nameserver 127.0.0.53\noptions edns0\n", "# none\n", "127.0.0.53:53"},
		{"nameserver 127.0.0.53\noptions  edns0\n", "", "127.0.0.53:53"},
		{"nameserver 127.0.0.1\n", "nameserver 192.0.2.7\n", "127.0.0.1:53"},
		{"nameserver " + gateway + "\nnameserver 192.0.2.22\n", "", "192.0.2.22:53"},
	} {
		for path, text := range map[string]string{r.Path: c.conf, r.Stub: c.stub} {
			_ = os.Remove(path)
			if text == "" {
				continue
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, s := range r.Servers() {
			got = append(got, s.String())
		}
		if !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q and %q: got %v, want %s", c.conf, c.stub, got, c.want)
		}
	}
}
