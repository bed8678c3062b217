package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/firewall"
	"banger/internal/network"
	"banger/internal/vm"
)

// Network measures the firewall as its guests become many, in a network namespace of its own.
type Network struct {
	Guests int // at least twice few
	Runs   int // at least 1
}

// Networked is what one run saw. It travels as JSON; times are in nanoseconds.
type Networked struct {
	Guests    int             `json:"guests"`
	Few       []time.Duration `json:"few"`  // each add of a 10th guest
	Many      []time.Duration `json:"many"` // each add of the last one
	FewList   []time.Duration `json:"few_list"`
	ManyList  []time.Duration `json:"many_list"` // the same of guests with an allow list of CIDRs
	Learns    []time.Duration `json:"learns"`    // an address that a name of a guest's list has, with all guests
	Rebuilds  []time.Duration `json:"rebuilds"`  // the same
	FewRules  int             `json:"few_rules"`
	ManyRules int             `json:"many_rules"`
	Elements  int             `json:"elements"` // of all sets
}

const networkTag = vm.Tag("be4c")

// Run measures. It needs root.
func (n Network) Run(ctx context.Context) (m Networked, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this, and the namespace with it
		if err = unix.Unshare(unix.CLONE_NEWNET); errors.Is(err, unix.EPERM) {
			err = fault.New(fault.Requirement, "it needs root").WithOp("measure the firewall", "").WithHint("run it with sudo")
		}
		if err == nil {
			m, err = n.measure(ctx)
		}
	}()
	<-done
	return m, err
}

func (n Network) measure(ctx context.Context) (Networked, error) {
	m := Networked{Guests: n.Guests}
	fw := firewall.New(networkTag)
	if err := fw.Check(); err != nil {
		return m, err
	}
	guests := make([]network.Guest, n.Guests)
	for i := range guests {
		guests[i] = benchGuest(i)
	}
	if err := fw.Rebuild(ctx, guests[:few-1]); err != nil {
		return m, err
	}
	var err error
	if m.Few, m.FewList, err = n.adds(ctx, fw, guests[few-1]); err != nil {
		return m, err
	}
	if m.FewRules, _, err = count(); err != nil {
		return m, err
	}
	for i, g := range guests[few-1 : n.Guests-1] {
		if err := fw.Put(ctx, g); err != nil {
			return m, err
		}
		if err := fw.Learn(ctx, g.TAP, "example.com", lessons(i), time.Hour); err != nil {
			return m, err
		}
	}
	if m.Many, m.ManyList, err = n.adds(ctx, fw, guests[n.Guests-1]); err != nil {
		return m, err
	}
	if err := fw.Put(ctx, guests[n.Guests-1]); err != nil {
		return m, err
	}
	if m.ManyRules, m.Elements, err = count(); err != nil {
		return m, err
	}
	a := netip.MustParseAddr("198.51.100.0")
	for range n.Runs {
		begun := time.Now()
		a = a.Next()
		if err := fw.Learn(ctx, guests[0].TAP, "example.com", []netip.Addr{a}, time.Hour); err != nil {
			return m, err
		}
		m.Learns = append(m.Learns, time.Since(begun))
	}
	for range n.Runs {
		begun := time.Now()
		if err := fw.Rebuild(ctx, guests); err != nil {
			return m, err
		}
		m.Rebuilds = append(m.Rebuilds, time.Since(begun))
	}
	return m, nil
}

// adds adds a guest and drops it again, in turn with all egress and with a list.
func (n Network) adds(ctx context.Context, fw *firewall.Firewall, g network.Guest) (all, list []time.Duration, err error) {
	for i := range 2*n.Runs + 2 {
		g.Policy.Egress = network.EgressAll
		if i%2 == 1 {
			g.Policy = listed()
		}
		begun := time.Now()
		if err := fw.Put(ctx, g); err != nil {
			return nil, nil, err
		}
		took := time.Since(begun)
		if err := fw.Drop(ctx, g.TAP); err != nil {
			return nil, nil, err
		}
		switch {
		case i < 2: // unmeasured
		case i%2 == 1:
			list = append(list, took)
		default:
			all = append(all, took)
		}
	}
	return all, list, nil
}

// benchGuest is the i-th one. Of four, one each has an allow list, none, isolation, and nothing of that.
func benchGuest(i int) network.Guest {
	mac := net.HardwareAddr{2, 0, 198, 18, byte(i >> 8), byte(i)}
	address6 := netip.MustParseAddr("2001:db8::").As16()
	address6[14], address6[15] = byte(i>>8)+1, byte(i)
	g := network.Guest{
		TAP: networkTag.TAPs() + fmt.Sprintf("%08x", i), Bridge: networkTag.Bridge(0), MAC: mac.String(),
		Address: netip.AddrFrom4([4]byte{198, 18, byte(i>>8) + 1, byte(i)}), Gateway: netip.MustParseAddr("198.18.0.1"),
		Address6: netip.AddrFrom16(address6), Gateway6: netip.MustParseAddr("2001:db8::1"),
		Policy: network.Policy{NAT: true, NAT6: true, Egress: network.EgressAll},
	}
	switch i % 4 {
	case 0:
		g.Policy = listed()
	case 1:
		g.Policy.Egress = network.EgressNone
	case 2:
		g.Policy.Isolated = true
	}
	return g
}

// listed has eight CIDRs and a name.
func listed() network.Policy {
	p := network.Policy{NAT: true, NAT6: true, Egress: network.EgressList, Allow: network.Allow{Names: []string{"example.com"}}}
	for i := range byte(8) {
		p.Allow.Prefixes = append(p.Allow.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, i * 32}), 28))
	}
	return p
}

// lessons are addresses that a name has.
func lessons(i int) []netip.Addr {
	var all []netip.Addr
	for n := range byte(16) {
		all = append(all, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)*16 + n}))
	}
	return all
}

// count counts the rules and the elements of all tables.
func count() (rules, elements int, err error) {
	c, err := nftables.New()
	if err != nil {
		return 0, 0, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return 0, 0, err
	}
	for _, ch := range chains {
		all, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return 0, 0, err
		}
		rules += len(all)
	}
	tables, err := c.ListTables()
	if err != nil {
		return 0, 0, err
	}
	for _, t := range tables {
		sets, err := c.GetSets(t)
		if err != nil {
			return 0, 0, err
		}
		for _, s := range sets {
			all, err := c.GetSetElements(s)
			if err != nil {
				return 0, 0, err
			}
			elements += len(all)
		}
	}
	return rules, elements, nil
}

// The limits of the firewall.
const (
	maxAddGrowth   = 1.3
	maxAllowGrowth = 2    // the kernel copies the set of all guests' CIDRs at each change
	maxRebuild     = 1000 // ms
)

// NetworkReport is what the measurements say.
type NetworkReport struct {
	OK       bool      `json:"ok"`
	Limits   []Limit   `json:"limits"`
	Few      Spread    `json:"few"`
	Many     Spread    `json:"many"`
	FewList  Spread    `json:"few_list"`
	ManyList Spread    `json:"many_list"`
	Learn    Spread    `json:"learn"`
	Rebuild  Spread    `json:"rebuild"`
	Measured Networked `json:"measured"`
}

// SummarizeNetwork judges what was measured.
func SummarizeNetwork(m Networked) NetworkReport {
	r := NetworkReport{
		Few: spread(m.Few), Many: spread(m.Many), FewList: spread(m.FewList), ManyList: spread(m.ManyList), Learn: spread(m.Learns), Rebuild: spread(m.Rebuilds), Measured: m,
	}
	r.Limits, r.OK = judge([]Limit{
		{Name: fmt.Sprintf("add of guest %d over guest %d", m.Guests, few), Value: r.Many.Median / r.Few.Median, Max: maxAddGrowth},
		{Name: "the same, with an allow list", Value: r.ManyList.Median / r.FewList.Median, Max: maxAllowGrowth},
		{Name: fmt.Sprintf("rules more with %d guests than with %d", m.Guests, few), Value: float64(m.ManyRules - m.FewRules)},
		{Name: "rebuild with all guests", Value: r.Rebuild.Median, Max: maxRebuild, Unit: "ms"},
	})
	return r
}

// Text prints the report for people.
func (r NetworkReport) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	m := r.Measured
	fmt.Fprintf(t, "%d guests, %d elements of sets, %d rules with %d guests and %d with all\n\nmedian\tminimum\t\n", m.Guests, m.Elements, m.FewRules, few, m.ManyRules)
	for _, row := range []struct {
		name string
		s    Spread
	}{
		{fmt.Sprintf("add of guest %d", few), r.Few},
		{fmt.Sprintf("add of guest %d", m.Guests), r.Many},
		{fmt.Sprintf("add of guest %d, with an allow list", few), r.FewList},
		{fmt.Sprintf("add of guest %d, with an allow list", m.Guests), r.ManyList},
		{"an address learned, with all guests", r.Learn},
		{"rebuild with all guests", r.Rebuild},
	} {
		fmt.Fprintf(t, "%.2f ms\t%.2f ms\t%s\n", row.s.Median, row.s.Min, left(row.name))
	}
	fmt.Fprintln(t)
	tellLimits(t, r.Limits)
	return t.Flush()
}
