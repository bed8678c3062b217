package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// The limits of a fleet.
const (
	maxListGrowth   = 3
	maxCreateGrowth = 1.3
	maxFleetDaemon  = 150 // MiB
	maxWatched      = 0.25
	window          = 50 // creates of which a median is taken
)

// FleetReport is what the measurements say.
type FleetReport struct {
	OK       bool    `json:"ok"`
	Limits   []Limit `json:"limits"`
	First    Spread  `json:"first_creates"` // of banger's own time
	Last     Spread  `json:"last_creates"`
	FirstCPU Spread  `json:"first_creates_cpu"`
	LastCPU  Spread  `json:"last_creates_cpu"`
	Few      Spread  `json:"list_few"`
	Many     Spread  `json:"list_many"`
	Measured Fleeted `json:"measured"`
}

// SummarizeFleet judges what was measured, in at least two creates.
func SummarizeFleet(m Fleeted) FleetReport {
	n := min(window, len(m.Creates)/2)
	ends := func(what func(FleetCreate) time.Duration) (first, last Spread) {
		var a, b []time.Duration
		for i := range n {
			a, b = append(a, what(m.Creates[i])), append(b, what(m.Creates[len(m.Creates)-1-i]))
		}
		return spread(a), spread(b)
	}
	r := FleetReport{Measured: m, Few: spread(m.Few), Many: spread(m.Many)}
	r.First, r.Last = ends(func(c FleetCreate) time.Duration { return c.Own })
	r.FirstCPU, r.LastCPU = ends(func(c FleetCreate) time.Duration { return c.CPU })
	const mib = 1 << 20
	r.Limits, r.OK = judge([]Limit{
		{Name: fmt.Sprintf("vm list, CPU with %d VMs over %d", m.VMs, few), Value: r.Many.Median / r.Few.Median, Max: maxListGrowth},
		{Name: fmt.Sprintf("create, banger's own time of the last %d over the first", n), Value: r.Last.Median / r.First.Median, Max: maxCreateGrowth},
		{Name: fmt.Sprintf("create, CPU of the daemon of the last %d over the first", n), Value: r.LastCPU.Median / r.FirstCPU.Median, Max: maxCreateGrowth},
		{Name: "vm stats of all VMs each second, share of a core that the daemon takes", Value: m.Watched, Max: maxWatched},
		{Name: "daemon, resident with all VMs", Value: float64(m.RSS) / mib, Max: maxFleetDaemon, Unit: "MiB"},
		{Name: "goroutines more after all were deleted", Value: float64(max(0, m.After.Goroutines-m.Before.Goroutines))},
		{Name: "descriptors more after all were deleted", Value: float64(max(0, m.After.Descriptors-m.Before.Descriptors))},
	})
	return r
}

// Text prints the report for people.
func (r FleetReport) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%d VMs, made one after another\n\nmedian\tminimum\t\n", r.Measured.VMs)
	for _, row := range []struct {
		name string
		s    Spread
	}{
		{"create, banger's own time, first", r.First},
		{"create, banger's own time, last", r.Last},
		{"create, CPU of the daemon, first", r.FirstCPU},
		{"create, CPU of the daemon, last", r.LastCPU},
		{fmt.Sprintf("vm list, CPU of command and daemon, %d VMs", few), r.Few},
		{fmt.Sprintf("vm list, CPU of command and daemon, %d VMs", r.Measured.VMs), r.Many},
	} {
		fmt.Fprintf(t, "%.1f ms\t%.1f ms\t%s\n", row.s.Median, row.s.Min, left(row.name))
	}
	fmt.Fprintf(t, "\n%d goroutines and %d descriptors before the first, %d and %d after the last\n\n",
		r.Measured.Before.Goroutines, r.Measured.Before.Descriptors, r.Measured.After.Goroutines, r.Measured.After.Descriptors)
	tellLimits(t, r.Limits)
	return t.Flush()
}
