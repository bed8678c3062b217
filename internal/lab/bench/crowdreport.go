package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// maxCrowd limits creates at once over as many bare boots at once.
const maxCrowd = 1.15

// CrowdReport is what the measurements say.
type CrowdReport struct {
	OK      bool    `json:"ok"`
	Limits  []Limit `json:"limits"`
	Bare    Spread  `json:"bare"` // of all at once, until the last was ready
	Cold    Spread  `json:"cold"`
	Warm    Spread  `json:"warm"`
	ColdCPU Spread  `json:"cold_cpu"` // of the daemon
	WarmCPU Spread  `json:"warm_cpu"`
	// Stages are of one cold create among all.
	Stages   []Share `json:"stages"`
	Measured Crowded `json:"measured"`
}

// SummarizeCrowd judges what was measured, in at least one round.
func SummarizeCrowd(m Crowded) CrowdReport {
	var bare, cold, warm, coldCPU, warmCPU []time.Duration
	var each []Round
	for _, round := range m.Rounds {
		bare, cold, warm = append(bare, round.Bare), append(cold, round.Cold.ready()), append(warm, round.Warm.ready())
		coldCPU, warmCPU = append(coldCPU, round.Cold.DaemonCPU), append(warmCPU, round.Warm.DaemonCPU)
		for _, o := range round.Cold.Operations {
			each = append(each, Round{Verbs: map[Name]Verb{ColdCreate: {Operation: o}}})
		}
	}
	r := CrowdReport{
		Bare: spread(bare), Cold: spread(cold), Warm: spread(warm), ColdCPU: spread(coldCPU), WarmCPU: spread(warmCPU), Measured: m,
	}
	r.Stages = shares(ColdCreate, each, r.Cold.Median)
	r.Limits, r.OK = judge([]Limit{{
		Name:  fmt.Sprintf("%d creates at once over as many bare boots", m.Guests),
		Value: r.Cold.Median / r.Bare.Median, Max: maxCrowd, Few: len(m.Rounds) < judgedRounds,
	}})
	return r
}

// Text prints the report for people.
func (r CrowdReport) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "image %s, %d at once, medians of %d\n\nminimum\tmedian\tp95\tover bare\t\n", r.Measured.Image, r.Measured.Guests, len(r.Measured.Rounds))
	for _, row := range []struct {
		name string
		s    Spread
	}{
		{"bare boots, until the last is ready", r.Bare},
		{"cold creates", r.Cold},
		{"warm creates", r.Warm},
		{"CPU time of the daemon in cold creates", r.ColdCPU},
		{"CPU time of the daemon in warm creates", r.WarmCPU},
	} {
		fmt.Fprintf(t, "%.0f ms\t%.0f ms\t%.0f ms\t%.3f\t%s\n", row.s.Min, row.s.Median, row.s.P95, row.s.Median/r.Bare.Median, left(row.name))
	}
	fmt.Fprintf(t, "\nmedian\tof all\t%s\n", left("stages of one cold create among them"))
	for _, s := range r.Stages {
		fmt.Fprintf(t, "%.0f ms\t%.1f %%\t%s\n", s.Median, s.Percent, left(s.Stage))
	}
	fmt.Fprintln(t)
	tellLimits(t, r.Limits)
	return t.Flush()
}
