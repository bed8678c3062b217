package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"banger/internal/dns"
	"banger/internal/network"
	"banger/internal/op"
	"banger/internal/store"
	"banger/internal/vm"
)

// Names measures how many queries a second the DNS server answers, beside a server that sends back what it gets: the most that UDP
// sockets are good for here.
type Names struct {
	Rounds int
	Each   time.Duration // of a round
}

// Named is what was measured.
type Named struct {
	Rounds []NamedRound `json:"rounds"`
}

// NamedRound is one of both servers.
type NamedRound struct {
	Echo Asked `json:"echo"`
	DNS  Asked `json:"dns"`
}

// Asked is what clients saw of a server.
type Asked struct {
	Rate float64 `json:"rate"` // answers a second
	Sent int64   `json:"sent"`
	Lost int64   `json:"lost"`
}

// What clients do: as many sockets, each with as many queries under way.
const (
	namesSockets = 8
	namesWindow  = 8
	namesVMs     = 100
	namesLost    = 2 * time.Second // without an answer
)

// Run measures both servers in turns, with the same clients.
func (n Names) Run(ctx context.Context) (m Named, err error) {
	dir, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := store.Open(ctx, dir)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	space := network.Space{Subnet: netip.MustParsePrefix("10.223.0.0/22")}
	for i := range namesVMs {
		v := vm.VM{ID: vm.NewID(), Name: fmt.Sprintf("dev%03d", i), State: vm.Running}
		if _, err := s.Create(ctx, v, space.Pick, func(vm.VM) []vm.Record { return nil }, op.Operation{ID: op.NewID()}); err != nil {
			return m, err
		}
	}
	server := dns.New(dns.Config{Zone: committed{s}, Log: slog.New(slog.DiscardHandler)})
	defer server.Close()
	for range n.Rounds {
		var r NamedRound
		if r.Echo, err = n.ask(ctx, echo); err != nil {
			return m, err
		}
		if r.DNS, err = n.ask(ctx, func(c *net.UDPConn) func() { return server.ServeUDP(c, false) }); err != nil {
			return m, err
		}
		m.Rounds = append(m.Rounds, r)
	}
	return m, ctx.Err()
}

// committed answers of a store, as the daemon's does.
type committed struct{ *store.Store }

func (c committed) At(context.Context, netip.Addr) (network.Guest, bool, error) {
	return network.Guest{}, false, nil
}

func (committed) Subnets() []netip.Prefix { return nil }

// echo sends back what it gets, until the returned function is called.
func echo(c *net.UDPConn) (stop func()) {
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort(buf[:n], from)
			}
		})
	}
	return func() {
		_ = c.Close()
		wg.Wait()
	}
}

// ask has clients ask a server for the time of a round.
func (n Names) ask(ctx context.Context, serve func(*net.UDPConn) func()) (Asked, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return Asked{}, err
	}
	defer serve(c.(*net.UDPConn))()
	var sent, got atomic.Int64
	errs := make([]error, namesSockets)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range namesSockets {
		wg.Go(func() { errs[i] = asker(ctx, c.LocalAddr().String(), i, begin.Add(n.Each), &sent, &got) })
	}
	wg.Wait()
	took := time.Since(begin)
	return Asked{Rate: float64(got.Load()) / took.Seconds(), Sent: sent.Load(), Lost: sent.Load() - got.Load()}, errors.Join(errs...)
}

// asker keeps a few queries under way over one socket, until a time, and awaits their answers.
func asker(ctx context.Context, server string, number int, until time.Time, sent, got *atomic.Int64) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", server)
	if err != nil {
		return err
	}
	defer c.Close()
	query := slices.Concat([]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 6}, fmt.Appendf(nil, "dev%03d", number), []byte{2, 'v', 'm', 0, 0, 1, 0, 1})
	next, answer := uint16(0), make([]byte, 4096)
	send := func() error {
		next++
		binary.BigEndian.PutUint16(query, next)
		sent.Add(1)
		_, err := c.Write(query)
		return err
	}
	underway := 0
	for ; underway < namesWindow; underway++ {
		if err := send(); err != nil {
			return err
		}
	}
	for underway > 0 {
		if err := c.SetReadDeadline(time.Now().Add(namesLost)); err != nil {
			return err
		}
		if _, err := c.Read(answer); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil // what is under way is lost
		} else if err != nil {
			return err
		}
		got.Add(1)
		if underway--; time.Now().Before(until) {
			if err := send(); err != nil {
				return err
			}
			underway++
		}
	}
	return nil
}

// maxEcho is how many times as many answers the bare server may give.
const maxEcho = 2

// NamesReport is what the measurements say.
type NamesReport struct {
	OK       bool    `json:"ok"`
	Limits   []Limit `json:"limits"`
	Ratio    float64 `json:"ratio"` // of the DNS server's rate to the bare one's, median of the rounds
	Measured Named   `json:"measured"`
}

// SummarizeNames judges what was measured, in at least one round.
func SummarizeNames(m Named) NamesReport {
	var ratios []float64
	lost := int64(0)
	for _, r := range m.Rounds {
		ratios = append(ratios, r.DNS.Rate/r.Echo.Rate)
		lost += r.DNS.Lost
	}
	slices.Sort(ratios)
	r := NamesReport{Measured: m, Ratio: ratios[len(ratios)/2]}
	r.Limits, r.OK = judge([]Limit{
		{Name: "answers a second, of a server that sends back what it gets over the DNS server's", Value: 1 / r.Ratio, Max: maxEcho},
		{Name: "queries that were not answered", Value: float64(lost)},
	})
	return r
}

// Text prints the report for people.
func (r NamesReport) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "bare a second\tDNS a second\tratio\tlost\t\n")
	for _, m := range r.Measured.Rounds {
		fmt.Fprintf(t, "%.0f\t%.0f\t%.2f\t%d of %d\t\n", m.Echo.Rate, m.DNS.Rate, m.DNS.Rate/m.Echo.Rate, m.DNS.Lost, m.DNS.Sent)
	}
	fmt.Fprintf(t, "\nthe DNS server answers %.2f times what the bare one does\n\n", r.Ratio)
	tellLimits(t, r.Limits)
	return t.Flush()
}
