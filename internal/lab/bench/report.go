package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The limits that hold for every run. That of the cold create's ratio can be chosen.
const (
	DefaultRatio    = 1.10
	maxWarm         = 0.25
	maxWarmSSH      = 0.10
	maxPause        = 1.15
	maxFork         = 1.2
	maxBeforeStart  = 3 // MiB
	maxCommits      = 3
	maxDaemon       = 40 // MiB
	maxAgent        = 16 // MiB
	maxBinary       = 8  // MiB
	maxInitrd       = 12 // MiB
	maxList         = 40 // ms
	judgedRounds    = 5  // medians of fewer are printed, and not judged
	mib             = 1 << 20
	percentileOfAll = 95
)

// Report is what the measurements say.
type Report struct {
	Image    string       `json:"image"`
	OK       bool         `json:"ok"`
	Limits   []Limit      `json:"limits"`
	Bare     Spread       `json:"bare"`
	Snapshot Spread       `json:"snapshot"` // Firecracker's own, of a bare guest
	Pause    Spread       `json:"pause"`    // of a guest that is forked
	Verbs    []VerbReport `json:"verbs"`
	// What one more create takes of the disk, medians in MiB.
	BeforeStart float64  `json:"disk_before_start_mib"`
	UntilReady  float64  `json:"disk_until_ready_mib"`
	Measured    Measured `json:"measured"`
}

// VerbReport is what the measurements say of one verb.
type VerbReport struct {
	Verb    Name   `json:"verb"`
	Ready   Spread `json:"ready"`        // from the request's arrival at the daemon
	SSH     Spread `json:"ssh,omitzero"` // from there to the end of the first command over SSH
	Command Spread `json:"command"`      // as the command took
	Own     Spread `json:"own"`          // the part of Ready that is not the hypervisor's or the guest's
	// CPU is what command and daemon together used of the processors.
	CPU   Spread  `json:"cpu"`
	Ratio float64 `json:"ratio"` // median Ready over the median bare boot
	// PairRatio is the median of the rounds' own ratios.
	PairRatio float64 `json:"pair_ratio"`
	SSHRatio  float64 `json:"ssh_ratio,omitempty"` // median SSH over the median bare boot
	Stages    []Share `json:"stages"`
	Commits   int64   `json:"commits"`  // the most of any
	Children  int64   `json:"children"` // the most of any

	before int64 // the most durable commits before a hypervisor was started
}

// Spread is a sample in milliseconds.
type Spread struct {
	Min    float64 `json:"min_ms"`
	Median float64 `json:"median_ms"`
	P95    float64 `json:"p95_ms"` // of few, the most
}

// Share is one stage's part of a verb. Stages run side by side, so that shares can sum up to more
// than all of it.
type Share struct {
	Stage   string  `json:"stage"`
	Median  float64 `json:"median_ms"`
	Percent float64 `json:"percent"`           // of the median of all
	Bare    float64 `json:"bare_ms,omitempty"` // the median of the same in bare boots
}

// Limit is one promise, and whether it is kept.
type Limit struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Max   float64 `json:"max"`
	Unit  string  `json:"unit,omitempty"`
	OK    bool    `json:"ok"`
	Few   bool    `json:"few,omitempty"` // it is a median of too few to be judged
}

// stageRequest is the part of an operation before its first stage: the request is checked, and the VM and
// all that it will hold are committed.
const stageRequest = "request"

// Summarize judges what was measured, in at least one round. maxRatio limits a cold create over a bare boot.
func Summarize(m Measured, maxRatio float64) Report {
	r := Report{Image: m.Image, Measured: m}
	var bare, snapshots, pauses []time.Duration
	var before, until []float64
	for _, round := range m.Rounds {
		bare, snapshots = append(bare, round.Bare.Ready), append(snapshots, round.Bare.Snapshot)
		pauses = append(pauses, round.Verbs[Fork].pause())
		before, until = append(before, float64(round.Growth.BeforeStart)/mib), append(until, float64(round.Growth.UntilReady)/mib)
	}
	r.Bare, r.Snapshot, r.Pause, r.BeforeStart, r.UntilReady = spread(bare), spread(snapshots), spread(pauses), median(before), median(until)
	by := map[Name]VerbReport{}
	commits := int64(0)
	for _, name := range names() {
		v := summarize(name, m.Rounds, r.Bare.Median)
		r.Verbs, by[name], commits = append(r.Verbs, v), v, max(commits, v.before)
	}
	cold, warm := by[ColdCreate], by[WarmCreate]
	few := len(m.Rounds) < judgedRounds
	limits := []Limit{
		{Name: "cold create to ready over bare boot", Value: cold.Ratio, Max: maxRatio, Few: few},
		{Name: "warm create to ready over cold create", Value: warm.Ready.Median / cold.Ready.Median, Max: maxWarm, Few: few},
	}
	if cold.SSH.Median > 0 {
		limits = append(limits, Limit{Name: "warm create to first SSH command over cold create", Value: warm.SSH.Median / cold.SSH.Median, Max: maxWarmSSH, Few: few})
	}
	w := m.Weight
	r.Limits, r.OK = judge(append(limits,
		Limit{Name: "pause of what is forked over Firecracker's own snapshot", Value: r.Pause.Median / r.Snapshot.Median, Max: maxPause, Few: few},
		Limit{Name: "fork to ready over that snapshot and a warm create", Value: by[Fork].Ready.Median / (r.Snapshot.Median + warm.Ready.Median), Max: maxFork, Few: few},
		Limit{Name: "disk that one more create takes before its start", Value: r.BeforeStart, Max: maxBeforeStart, Unit: "MiB", Few: few},
		Limit{Name: "durable commits before a guest starts", Value: float64(commits), Max: maxCommits},
		Limit{Name: "idle daemon, resident", Value: float64(w.Daemon) / mib, Max: maxDaemon, Unit: "MiB"},
		Limit{Name: "agent, resident in the guest", Value: float64(w.Agent) / mib, Max: maxAgent, Unit: "MiB"},
		Limit{Name: "agent binary", Value: float64(w.AgentBinary) / mib, Max: maxBinary, Unit: "MiB"},
		Limit{Name: "initrd", Value: float64(w.Initrd) / mib, Max: maxInitrd, Unit: "MiB"},
		Limit{Name: "vm list, CPU on the plain machine", Value: spread(w.List).Median, Max: maxList, Unit: "ms"},
	))
	return r
}

// summarize says what became of one verb, beside bare boots of a median in milliseconds.
func summarize(name Name, rounds []Round, bare float64) VerbReport {
	r := VerbReport{Verb: name}
	var ready, ssh, command, own, cpu []time.Duration
	var ratios []float64
	for _, round := range rounds {
		v := round.Verbs[name]
		ready, command, own, cpu = append(ready, v.ready()), append(command, v.Command), append(own, v.own()), append(cpu, v.CommandCPU+v.DaemonCPU)
		if v.SSH > 0 {
			ssh = append(ssh, v.SSH)
		}
		ratios = append(ratios, float64(v.ready())/float64(round.Bare.Ready))
		r.before, r.Commits, r.Children = max(r.before, v.CommitsBefore), max(r.Commits, v.Commits), max(r.Children, v.Children)
	}
	r.Ready, r.SSH, r.Command, r.Own, r.CPU = spread(ready), spread(ssh), spread(command), spread(own), spread(cpu)
	r.Ratio, r.PairRatio, r.SSHRatio = r.Ready.Median/bare, median(ratios), r.SSH.Median/bare
	r.Stages = shares(name, rounds, r.Ready.Median)
	return r
}

// judge says of each limit whether it is kept, and whether all are.
func judge(limits []Limit) (judged []Limit, ok bool) {
	ok = true
	for i := range limits {
		limits[i].OK = limits[i].Few || limits[i].Value <= limits[i].Max
		ok = ok && limits[i].OK
	}
	return limits, ok
}

// shares lists a verb's stages in the order of the first round.
func shares(name Name, rounds []Round, total float64) []Share {
	took, bare := map[string][]time.Duration{}, map[string][]time.Duration{}
	var order []string
	note := func(stage string, d time.Duration) {
		if took[stage] == nil {
			order = append(order, stage)
		}
		took[stage] = append(took[stage], d)
	}
	for _, round := range rounds {
		o := round.Verbs[name].Operation
		for i, s := range o.Stages {
			if i == 0 {
				note(stageRequest, s.Started.Sub(o.Created))
			}
			note(s.Name, s.Duration)
		}
		if name != ColdCreate && name != Start {
			continue // what is no boot may have a stage of the same name
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
	return Spread{Min: slices.Min(ms), Median: median(ms), P95: percentile(ms, percentileOfAll)}
}

// percentile is the least of a sample, which is not empty, that this share of it does not pass.
func percentile(all []float64, percent int) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[(len(all)*percent+99)/100-1]
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
	fmt.Fprintf(t, "image %s, medians of %d\n\n", r.Image, len(r.Measured.Rounds))
	fmt.Fprint(t, "minimum\tmedian\tp95\tover bare\t\n")
	row := func(s Spread, over, name string) {
		fmt.Fprintf(t, "%.0f ms\t%.0f ms\t%.0f ms\t%s\t%s\n", s.Min, s.Median, s.P95, over, left(name))
	}
	row(r.Bare, "", "bare boot of the same files to the same readiness")
	row(r.Snapshot, "", "Firecracker's own snapshot of that guest")
	row(r.Pause, "", "pause of a guest that is forked")
	for _, v := range r.Verbs {
		row(v.Ready, fmt.Sprintf("%.3f", v.Ratio), string(v.Verb))
		if v.SSH.Median > 0 {
			row(v.SSH, fmt.Sprintf("%.3f", v.SSHRatio), string(v.Verb)+", to the first command over SSH")
		}
	}
	fmt.Fprint(t, "\nown\tcommand\tCPU\tcommits\tprocesses\tround by round\t"+left("medians; own is what neither hypervisor nor guest took")+"\n")
	for _, v := range r.Verbs {
		fmt.Fprintf(t, "%.0f ms\t%.0f ms\t%.0f ms\t%d\t%d\t%.3f\t%s\n",
			v.Own.Median, v.Command.Median, v.CPU.Median, v.Commits, v.Children, v.PairRatio, left(string(v.Verb)))
	}
	for _, v := range r.Verbs {
		fmt.Fprintf(t, "\nmedian\tshare\tbare\t%s\n", left(string(v.Verb)+": stages, of which some run side by side"))
		for _, s := range v.Stages {
			bare := ""
			if s.Bare > 0 {
				bare = fmt.Sprintf("%.0f ms", s.Bare)
			}
			fmt.Fprintf(t, "%.0f ms\t%.1f %%\t%s\t%s\n", s.Median, s.Percent, bare, left(s.Stage))
		}
	}
	fmt.Fprintf(t, "\ndisk that one more create has taken when it is ready: %s\n\n", amount(r.UntilReady, "MiB"))
	tellLimits(t, r.Limits)
	return t.Flush()
}

func tellLimits(w io.Writer, limits []Limit) {
	fmt.Fprint(w, "measured\tat most\t\n")
	for _, l := range limits {
		verdict := ""
		switch {
		case !l.OK:
			verdict = ": TOO MUCH"
		case l.Few:
			verdict = fmt.Sprintf(" (not judged: fewer than %d rounds)", judgedRounds)
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
