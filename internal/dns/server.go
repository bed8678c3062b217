// Package dns answers for VMs by their names, and asks the host's resolvers for guests what else they want to know, as far as their
// owners allow it.
package dns

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/miekg/dns"

	"banger/internal/network"
	"banger/internal/vm"
)

// Zone is what is known of VMs. It is asked with each query, so that an answer is never older than the VM's last change.
type Zone interface {
	// Named returns the lease of the VM of a name; false where there is none, or where it neither runs nor is paused.
	Named(ctx context.Context, name string) (vm.Lease, bool, error)
	// At returns the VM that has an address, whatever its state; false where there is none.
	At(ctx context.Context, a netip.Addr) (network.Guest, bool, error)
	// Subnets are those that VMs have their addresses in.
	Subnets() []netip.Prefix
}

// Learner lets a guest connect to what a name has. It is told before the guest is.
type Learner interface {
	Learn(ctx context.Context, tap, name string, addrs []netip.Addr, ttl time.Duration) error
}

// Config joins a server with what it needs.
type Config struct {
	Zone    Zone
	Ask     func(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) // the host's resolvers, for guests
	Learner Learner
	Refused func(g network.Guest, name string) // told of each name that a guest asked for and may not know
	Log     *slog.Logger
}

// Server answers on any number of sockets.
type Server struct {
	Config
	ctx    context.Context //nolint:containedctx // ends what is under way when the server closes
	cancel context.CancelFunc
	room   chan struct{} // a place for each query that waits for the host's resolvers

	mu      sync.Mutex
	waiting map[netip.Addr]int // of them, how many are whose
	told    map[netip.Addr]telling
	second  int64              // in which asked counts
	asked   map[netip.Addr]int // queries
}

// telling is what Refused was told of a guest in a second.
type telling struct {
	second int64
	times  int
	name   string // the last one
}

// Bounds. A guest alone cannot take all there is.
const (
	maxAsked       = 1000 // queries of a guest, each second
	maxWaiting     = 512
	maxWaitingEach = 64
	maxTold        = 20  // refused names of a guest, each second
	maxConns       = 128 // TCP connections of a listener
	maxConnsEach   = 16  // from one guest
	idle           = 10 * time.Second
	slow           = 5 * time.Second // a query or an answer on its way over TCP
)

// maxPacket is the largest query that is read over UDP: nobody has more to ask.
const maxPacket = 4096

// New makes a server that answers nowhere yet.
func New(cfg Config) *Server {
	s := &Server{Config: cfg, room: make(chan struct{}, maxWaiting), waiting: map[netip.Addr]int{}, told: map[netip.Addr]telling{}, asked: map[netip.Addr]int{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close calls off what is still asked of the host's resolvers. Sockets are to be stopped before.
func (s *Server) Close() { s.cancel() }

// UDP is a socket that answers are sent on.
type UDP interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
	LocalAddr() net.Addr
	io.Closer
}

// ServeUDP answers on a socket until the returned function is called, which waits for the answers that are under way and closes the socket.
// Where guests ask, they are told what lies outside the VMs' zone too.
func (s *Server) ServeUDP(c UDP, guests bool) (stop func()) {
	var wg sync.WaitGroup
	f := face{local: netip.MustParseAddrPort(c.LocalAddr().String()).Addr(), guests: guests}
	for range 2 * runtime.GOMAXPROCS(0) { // one reads while others answer
		wg.Go(func() { s.readUDP(c, f, &wg) })
	}
	return func() {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		wg.Wait()
		_ = c.Close()
	}
}

func (s *Server) readUDP(c UDP, f face, wg *sync.WaitGroup) {
	in, out := make([]byte, maxPacket), make([]byte, maxPacket)
	for {
		n, from, err := c.ReadFromUDPAddrPort(in)
		switch {
		case errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			s.Log.Warn("read a DNS query", "error", err)
			s.rest() // what the kernel lacks it may have by then
			continue
		}
		q := query{face: f, from: from.Addr().Unmap().WithZone("")}
		if f.guests && !s.admit(q.from, time.Now().Unix()) {
			continue // who asks so much asks again
		}
		r, later := s.respond(in[:n], &q)
		if later != nil {
			wg.Go(func() { send(c, later(), from, nil) })
			continue
		}
		send(c, r, from, out)
	}
}

// rest keeps a failure that stays from taking a whole processor.
func (s *Server) rest() {
	select {
	case <-s.ctx.Done():
	case <-time.After(10 * time.Millisecond):
	}
}

func send(c UDP, r *response, to netip.AddrPort, buf []byte) {
	if packet := r.pack(buf); packet != nil {
		_, _ = c.WriteToUDPAddrPort(packet, to) // who asked asks again
	}
}

// ServeTCP is ServeUDP for connections.
func (s *Server) ServeTCP(l net.Listener, guests bool) (stop func()) {
	t := &tcp{server: s, f: face{local: netip.MustParseAddrPort(l.Addr().String()).Addr(), guests: guests, tcp: true}, conns: map[net.Conn]netip.Addr{}}
	t.wg.Go(func() { t.accept(l) })
	return func() {
		_ = l.Close()
		t.end()
		t.wg.Wait()
	}
}

// tcp is a listener's connections.
type tcp struct {
	server *Server
	f      face
	wg     sync.WaitGroup

	mu    sync.Mutex
	ended bool
	conns map[net.Conn]netip.Addr
}

func (t *tcp) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.server.Log.Warn("accept a DNS connection", "error", err)
			t.server.rest()
			continue
		}
		from := netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap().WithZone("")
		if !t.admit(c, from) {
			_ = c.Close()
			continue
		}
		t.wg.Go(func() {
			defer t.leave(c)
			t.serve(c, from)
		})
	}
}

// admit takes a connection in unless there are too many.
func (t *tcp) admit(c net.Conn, from netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	each := 0
	for _, other := range t.conns {
		if other == from {
			each++
		}
	}
	if t.ended || len(t.conns) >= maxConns || t.f.guests && each >= maxConnsEach {
		return false
	}
	t.conns[c] = from
	return true
}

func (t *tcp) leave(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	_ = c.Close()
}

// end has connections end with the answer that is under way.
func (t *tcp) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for c := range t.conns {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

// await sets the deadline for what is read next, unless the end has come.
func (t *tcp) await(c net.Conn, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.ended && c.SetReadDeadline(time.Now().Add(d)) == nil
}

// serve answers one query after another, each with its length before it.
func (t *tcp) serve(c net.Conn, from netip.Addr) {
	var length [2]byte
	for t.await(c, idle) {
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		if !t.await(c, slow) {
			return
		}
		packet := make([]byte, int(length[0])<<8|int(length[1]))
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		if t.f.guests && !t.server.admit(from, time.Now().Unix()) {
			return
		}
		r, later := t.server.respond(packet, &query{face: t.f, from: from})
		if later != nil {
			r = later()
		}
		out := r.pack(nil)
		if out == nil {
			return // it was no query, and what follows is none either
		}
		if err := c.SetWriteDeadline(time.Now().Add(slow)); err != nil {
			return
		}
		if _, err := c.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...)); err != nil {
			return
		}
	}
}

// admit counts a query of a guest's, and reports whether it is one of those that are answered.
func (s *Server) admit(from netip.Addr, second int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.second != second {
		clear(s.asked)
		s.second = second
	}
	s.asked[from]++
	return s.asked[from] <= maxAsked
}

// enter takes a place among the queries that wait for the host's resolvers; false where there is none.
func (s *Server) enter(from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[from] >= maxWaitingEach {
		return false
	}
	select {
	case s.room <- struct{}{}:
		s.waiting[from]++
		return true
	default:
		return false
	}
}

func (s *Server) exit(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	<-s.room
	if s.waiting[from]--; s.waiting[from] == 0 {
		delete(s.waiting, from)
	}
}

// news reports whether a refused name is to be told of: once for all that a program asks about it at once, and no more of them than somebody could read.
func (s *Server) news(from netip.Addr, name string, second int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.told[from]
	if t.second != second {
		t = telling{second: second}
	}
	if t.name == name || t.times == maxTold {
		return false
	}
	s.told[from] = telling{second, t.times + 1, name}
	return true
}
