package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The limits that hold for every run. That of the ratio can be chosen.
const (
	DefaultRatio = 1.25
	maxCommits   = 3
	maxDaemon    = 40 // MiB
	maxAgent     = 16 // MiB
	maxBinary    = 8  // MiB
	maxInitrd    = 12 // MiB
	maxList      = 40 // ms
)

// Report is what the measurements say.
type Report struct {
	Image   string  `json:"image"`
	OK      bool    `json:"ok"`
	Limits  []Limit `json:"limits"`
	Ready   Spread  `json:"ready"`   // of creates, from the request's arrival at the daemon
	Command Spread  `json:"command"` // of creates, as the command took
	Bare    Spread  `json:"bare"`
	Own     Spread  `json:"own"` // the part of Ready that is not the hypervisor's or the guest's
	// CPU is what command and daemon together used of the processors during a create.
	CPU   Spread  `json:"cpu"`
	Ratio float64 `json:"ratio"` // median create over median bare boot, which is what the limit is on
	// PairRatio is the median of the rounds' own ratios.
	PairRatio float64  `json:"pair_ratio"`
	Stages    []Share  `json:"stages"`
	Commits   int64    `json:"commits"`  // the most of any create
	Children  int64    `json:"children"` // the most of any create
	Measured  Measured `json:"measured"`
}

// Spread is a sample's median and minimum in milliseconds.
type Spread struct {
	Median float64 `json:"median_ms"`
	Min    float64 `json:"min_ms"`
}

// Share is one stage's part of a create. Stages run side by side, so that shares can sum up to more
// than all of it.
type Share struct {
	Stage   string  `json:"stage"`
	Median  float64 `json:"median_ms"`
	Percent float64 `json:"percent"`           // of the median create
	Bare    float64 `json:"bare_ms,omitempty"` // the median of the same in bare boots
}

// Limit is one promise, and whether it is kept.
type Limit struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Max   float64 `json:"max"`
	Unit  string  `json:"unit,omitempty"`
	OK    bool    `json:"ok"`
}

// stageRequest is the part of a create before its first stage: the request is checked, and the VM and
// all that it will hold are committed.
const stageRequest = "request"

// Summarize judges what was measured, in at least one round. maxRatio limits create over bare.
func Summarize(m Measured, maxRatio float64) Report {
	var ready, command, bare, own, cpu []time.Duration
	var ratios []float64
	r := Report{Image: m.Image, Measured: m}
	var before int64
	for _, round := range m.Rounds {
		c := round.Create
		ready, command, bare, own = append(ready, c.ready()), append(command, c.Command), append(bare, round.Bare.Ready), append(own, c.own())
		cpu = append(cpu, c.CommandCPU+c.DaemonCPU)
		ratios = append(ratios, float64(c.ready())/float64(round.Bare.Ready))
		before, r.Commits, r.Children = max(before, c.CommitsBefore), max(r.Commits, c.Commits), max(r.Children, c.Children)
	}
	r.Ready, r.Command, r.Bare, r.Own, r.CPU = spread(ready), spread(command), spread(bare), spread(own), spread(cpu)
	r.Ratio, r.PairRatio = r.Ready.Median/r.Bare.Median, median(ratios)
	r.Stages = shares(m.Rounds, r.Ready.Median)
	const mib = 1 << 20
	w := m.Weight
	r.Limits, r.OK = judge([]Limit{
		{Name: "create over bare boot", Value: r.Ratio, Max: maxRatio},
		{Name: "durable commits before the guest starts", Value: float64(before), Max: maxCommits},
		{Name: "idle daemon, resident", Value: float64(w.Daemon) / mib, Max: maxDaemon, Unit: "MiB"},
		{Name: "agent, resident in the guest", Value: float64(w.Agent) / mib, Max: maxAgent, Unit: "MiB"},
		{Name: "agent binary", Value: float64(w.AgentBinary) / mib, Max: maxBinary, Unit: "MiB"},
		{Name: "initrd", Value: float64(w.Initrd) / mib, Max: maxInitrd, Unit: "MiB"},
		{Name: "vm list, CPU on the plain machine", Value: spread(w.List).Median, Max: maxList, Unit: "ms"},
	})
	return r
}

// judge says of each limit whether it is kept, and whether all are.
func judge(limits []Limit) (judged []Limit, ok bool) {
	ok = true
	for i := range limits {
		limits[i].OK = limits[i].Value <= limits[i].Max
		ok = ok && limits[i].OK
	}
	return limits, ok
}

// shares lists the stages in the order of the first create.
func shares(rounds []Round, total float64) []Share {
	took, bare := map[string][]time.Duration{}, map[string][]time.Duration{}
	var order []string
	note := func(stage string, d time.Duration) {
		if took[stage] == nil {
			order = append(order, stage)
		}
		took[stage] = append(took[stage], d)
	}
	for _, round := range rounds {
		o := round.Create.Operation
		for i, s := range o.Stages {
			if i == 0 {
				note(stageRequest, s.Started.Sub(o.Created))
			}
			note(s.Name, s.Duration)
		}
		for _, s := range round.Bare.Stages {
			bare[s.Name] = append(bare[s.Name], s.Duration)
		}
	}
	var out []Share
	for _, stage := range order {
		m := spread(took[stage]).Median
		out = append(out, Share{Stage: stage, Median: m, Percent: 100 * m / total, Bare: spread(bare[stage]).Median})
	}
	return out
}

func spread(all []time.Duration) Spread {
	ms := make([]float64, len(all))
	for i, d := range all {
		ms[i] = float64(d) / float64(time.Millisecond)
	}
	if len(ms) == 0 {
		return Spread{}
	}
	return Spread{Median: median(ms), Min: slices.Min(ms)}
}

// median is the middle of a sample, between the two middle ones of an even one, and 0 of none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}

// Text prints the report for people.
func (r Report) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "image %s, %d creates and as many bare boots in turn\n\n", r.Image, len(r.Measured.Rounds))
	fmt.Fprint(t, "median\tminimum\t\n")
	for _, row := range []struct {
		name string
		s    Spread
	}{
		{"create to ready, from the request's arrival at the daemon", r.Ready},
		{"the command `banger vm create`", r.Command},
		{"bare boot of the same files to the same readiness", r.Bare},
		{"banger's own: no hypervisor yet, or the guest ready already", r.Own},
		{"CPU time of banger's command and daemon during a create", r.CPU},
	} {
		fmt.Fprintf(t, "%.0f ms\t%.0f ms\t%s\n", row.s.Median, row.s.Min, left(row.name))
	}
	fmt.Fprint(t, "\nmedian\tshare\tbare\t"+left("stage; some run side by side, guest.* are parts of guest")+"\n")
	for _, s := range r.Stages {
		bare := ""
		if s.Bare > 0 {
			bare = fmt.Sprintf("%.0f ms", s.Bare)
		}
		fmt.Fprintf(t, "%.0f ms\t%.1f %%\t%s\t%s\n", s.Median, s.Percent, bare, left(s.Stage))
	}
	fmt.Fprintf(t, "\ndurable commits of a create: %d\nchild processes of a create: %d\nmedian of the rounds' ratios: %.3f\n\n", r.Commits, r.Children, r.PairRatio)
	tellLimits(t, r.Limits)
	return t.Flush()
}

func tellLimits(w io.Writer, limits []Limit) {
	fmt.Fprint(w, "measured\tat most\t\n")
	for _, l := range limits {
		verdict := ""
		if !l.OK {
			verdict = ": TOO MUCH"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", amount(l.Value, l.Unit), amount(l.Max, l.Unit), left(l.Name+verdict))
	}
}

// left keeps a table's last column, which is not aligned to the right, away from the one before it.
func left(s string) string { return "  " + s }

// amount prints a whole number as such, and three digits behind the point of what has no unit.
func amount(v float64, unit string) string {
	switch {
	case v == float64(int64(v)):
		return strings.TrimSpace(fmt.Sprintf("%d %s", int64(v), unit))
	case unit == "":
		return fmt.Sprintf("%.3f", v)
	default:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
}
