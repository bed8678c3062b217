package bench

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/agentproto"
	"banger/internal/guest"
	"banger/internal/op"
	"banger/internal/vm"
)

const ms = time.Millisecond

// at is a time after the request's arrival.
func at(d time.Duration) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(d)
}

// boot is a verb that takes total. Of what is banger's, half passes before its hypervisor writes a word, and half after.
func boot(total, own time.Duration, start, ready string) Verb {
	return Verb{
		Command: total + 50*ms, CommandCPU: 30 * ms, DaemonCPU: 70 * ms,
		Hypervisor: at(own / 2), CommitsBefore: 1, Commits: 3, Children: 1,
		Operation: op.Operation{
			Created: at(0), Ended: at(total), State: op.Done,
			Stages: []op.Stage{
				{Name: "nic", Started: at(10 * ms), Duration: 20 * ms},
				{Name: start, Started: at(30 * ms), Duration: own/2 - 30*ms + 40*ms},
				{Name: ready, Started: at(own/2 + 40*ms), Duration: total - own - 40*ms},
				{Name: ready + ".kernel", Started: at(own), Duration: (total - own) / 2},
			},
		},
	}
}

// fork is a verb that has a guest stand still for 220 ms, and its fork ready after total.
func fork(total time.Duration) Verb {
	v := boot(total, 100*ms, "restore", "identity")
	v.Hypervisor = at(400 * ms)
	v.Operation.Stages = []op.Stage{
		{Name: "hold", Started: at(20 * ms), Duration: 30 * ms},
		{Name: "pause", Started: at(50 * ms), Duration: 5 * ms},
		{Name: "snapshot", Started: at(55 * ms), Duration: 200 * ms},
		{Name: "root-disk", Started: at(255 * ms), Duration: 10 * ms},
		{Name: "resume", Started: at(265 * ms), Duration: 5 * ms},
		{Name: "restore", Started: at(390 * ms), Duration: 20 * ms},
		{Name: "identity", Started: at(410 * ms), Duration: total - 420*ms},
	}
	return v
}

// plain is a verb that starts no guest, and waits half its time for one.
func plain(total time.Duration) Verb {
	return Verb{
		Command: total + 20*ms, DaemonCPU: 10 * ms, Commits: 2,
		Operation: op.Operation{
			Created: at(0), Ended: at(total), State: op.Done,
			Stages: []op.Stage{
				{Name: "shutdown", Started: at(10 * ms), Duration: total / 2},
				{Name: "hypervisor", Started: at(10*ms + total/2), Duration: 20 * ms},
			},
		},
	}
}

// round is one whose cold create takes total, and whose warm one a fifth of it.
func round(total, own, bare time.Duration) Round {
	return Round{
		Bare: Bare{Ready: bare, Snapshot: 200 * ms, Stages: []op.Stage{{Name: "hypervisor", Duration: 100 * ms}, {Name: "guest.kernel", Duration: bare / 2}}},
		Verbs: map[Name]Verb{
			ColdCreate: boot(total, own, "hypervisor", "guest"), Start: boot(total-10*ms, own, "hypervisor", "guest"),
			WarmCreate: boot(total/5, own, "restore", "identity"), Fork: fork(500 * ms),
			Stop: plain(400 * ms), Delete: plain(100 * ms),
		},
		Growth: Growth{BeforeStart: 1 << 20, UntilReady: 5 << 19},
	}
}

func sample() Measured {
	a, b, c := round(1000*ms, 100*ms, 1000*ms), round(1100*ms, 120*ms, 1000*ms), round(1200*ms, 80*ms, 900*ms)
	return Measured{
		Image:  "tiny",
		Rounds: []Round{a, b, c, b, b},
		Weight: Weight{Daemon: 30 << 20, Agent: 5 << 20, AgentBinary: 3 << 19, Initrd: 4 << 20, List: []time.Duration{3 * ms, 9 * ms, 4 * ms, 6 * ms}},
	}
}

// reachable is a sample whose guests offer SSH.
func reachable(cold, warm time.Duration) Measured {
	m := sample()
	for i, r := range m.Rounds {
		r.Verbs = maps.Clone(r.Verbs)
		for name, ssh := range map[Name]time.Duration{ColdCreate: cold, Start: cold, WarmCreate: warm, Fork: warm} {
			v := r.Verbs[name]
			v.SSH = ssh
			r.Verbs[name] = v
		}
		m.Rounds[i] = r
	}
	return m
}

// change is a change of one verb in all rounds.
func change(m *Measured, name Name, do func(*Verb)) {
	for i := range m.Rounds {
		m.Rounds[i].Verbs = maps.Clone(m.Rounds[i].Verbs)
		v := m.Rounds[i].Verbs[name]
		do(&v)
		m.Rounds[i].Verbs[name] = v
	}
}

func TestSummarize(t *testing.T) {
	r := Summarize(reachable(3000*ms, 300*ms), DefaultRatio)
	cold, warm, forks, stop := r.Verbs[0], r.Verbs[1], r.Verbs[2], r.Verbs[4]
	got := []any{
		r.OK, r.Bare, r.Snapshot, r.BeforeStart, r.UntilReady,
		cold.Verb, cold.Ratio, cold.PairRatio, cold.Ready, cold.Command, cold.Own, cold.CPU, cold.Commits, cold.Children, cold.SSH, cold.SSHRatio,
		warm.Verb, warm.Ratio, warm.Ready, warm.Own, warm.SSH,
		forks.Verb, forks.Own, r.Pause,
		stop.Verb, stop.Own, stop.SSH,
	}
	want := []any{
		true,
		Spread{900, 1000, 1000},
		Spread{200, 200, 200},
		1.0, 2.5,
		ColdCreate, 1.1, 1.1,
		Spread{1000, 1100, 1200},
		Spread{1050, 1150, 1250},
		Spread{80, 120, 120},
		Spread{100, 100, 100},
		int64(3), int64(1),
		Spread{3000, 3000, 3000},
		3.0,
		WarmCreate, 0.22,
		Spread{200, 220, 240},
		Spread{80, 120, 120},
		Spread{300, 300, 300},
		Fork,
		Spread{170, 170, 170},
		Spread{220, 220, 220},
		Stop,
		Spread{200, 200, 200},
		Spread{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	stages := []Share{
		{Stage: "request", Median: 10, Percent: 100 * 10.0 / 1100},
		{Stage: "nic", Median: 20, Percent: 100 * 20.0 / 1100},
		{Stage: "hypervisor", Median: 70, Percent: 100 * 70.0 / 1100, Bare: 100},
		{Stage: "guest", Median: 940, Percent: 100 * 940.0 / 1100},
		{Stage: "guest.kernel", Median: 490, Percent: 100 * 490.0 / 1100, Bare: 500},
	}
	if diff := cmp.Diff(stages, cold.Stages); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Share{
		{Stage: "request", Median: 10, Percent: 2.5}, {Stage: "shutdown", Median: 200, Percent: 50}, {Stage: "hypervisor", Median: 20, Percent: 5},
	}, stop.Stages); diff != "" {
		t.Error(diff)
	}
}

// over are the names of the limits that are broken.
func over(r Report) (names []string) {
	for _, l := range r.Limits {
		if !l.OK {
			names = append(names, l.Name)
		}
	}
	return names
}

func TestLimits(t *testing.T) {
	slow := func(d time.Duration) func(*Verb) {
		return func(v *Verb) { v.Operation.Ended = v.Operation.Ended.Add(d) }
	}
	for name, spoil := range map[string]func(*Measured){
		"cold create to ready over bare boot":               func(m *Measured) { change(m, ColdCreate, slow(ms)) },
		"warm create to ready over cold create":             func(m *Measured) { change(m, WarmCreate, slow(56*ms)) },
		"warm create to first SSH command over cold create": func(m *Measured) { *m = reachable(3000*ms, 301*ms) },
		"pause of what is forked over Firecracker's own snapshot": func(m *Measured) {
			change(m, Fork, func(v *Verb) { v.Operation.Stages[4].Duration += 11 * ms })
		},
		"fork to ready over that snapshot and a warm create": func(m *Measured) { change(m, Fork, slow(5*ms)) },
		"disk that one more create takes before its start":   func(m *Measured) { grown(m, 3<<20+1) },
		"durable commits before a guest starts":              func(m *Measured) { change(m, WarmCreate, func(v *Verb) { v.CommitsBefore = 4 }) },
		"idle daemon, resident":                              func(m *Measured) { m.Weight.Daemon = 40<<20 + 1 },
		"agent, resident in the guest":                       func(m *Measured) { m.Weight.Agent = 17 << 20 },
		"agent binary":                                       func(m *Measured) { m.Weight.AgentBinary = 9 << 20 },
		"initrd":                                             func(m *Measured) { m.Weight.Initrd = 13 << 20 },
		"vm list, CPU on the plain machine":                  func(m *Measured) { m.Weight.List = []time.Duration{41 * ms} },
	} {
		m := sample()
		spoil(&m)
		r := Summarize(m, DefaultRatio)
		if diff := cmp.Diff([]string{name}, over(r)); diff != "" || r.OK {
			t.Errorf("%s: ok %v\n%s", name, r.OK, diff)
		}
	}
}

func grown(m *Measured, bytes int64) {
	for i := range m.Rounds {
		m.Rounds[i].Growth.BeforeStart = bytes
	}
}

// Of a few rounds nothing is judged that is a median of them.
func TestAFewRoundsAreNotJudged(t *testing.T) {
	m := reachable(3000*ms, 900*ms)
	grown(&m, 9<<20)
	m.Weight.Initrd = 13 << 20
	if r := Summarize(m, 1); len(over(r)) != 4 {
		t.Errorf("of 5 rounds these are judged: %q", over(r))
	}
	m.Rounds = m.Rounds[:4]
	r := Summarize(m, 1)
	if diff := cmp.Diff([]string{"initrd"}, over(r)); diff != "" || r.OK {
		t.Errorf("ok %v\n%s", r.OK, diff)
	}
}

func TestPercentile(t *testing.T) {
	twenty := make([]float64, 20)
	for i := range twenty {
		twenty[i] = float64(20 - i)
	}
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2, 4, 5}, 9}, {twenty, 19}} {
		if got := percentile(c.of, 95); got != c.want {
			t.Errorf("95 of 100 of %v are at most %v, want %v", c.of, got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
}

func TestText(t *testing.T) {
	m := sample()
	m.Weight.Initrd = 13 << 20
	golden(t, "report.txt", Summarize(m, DefaultRatio).Text)
}

func TestTextOfAFewRounds(t *testing.T) {
	m := reachable(3000*ms, 300*ms)
	m.Rounds = m.Rounds[:1]
	golden(t, "few.txt", Summarize(m, DefaultRatio).Text)
}

func TestChart(t *testing.T) {
	m := reachable(3000*ms, 300*ms)
	m.Image = "<debian>"
	golden(t, "chart.svg", Summarize(m, DefaultRatio).Chart)
}

// golden compares what is written with a file of testdata.
func golden(t *testing.T, name string, text func(io.Writer) error) {
	t.Helper()
	var b strings.Builder
	if err := text(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name)
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("differs from %s:\n%s\n%s", file, diff, b.String())
	}
}

func TestLogs(t *testing.T) {
	log := `{"msg":"hypervisor starts","id":"aa","commits":2}
{"msg":"stage","id":"aa","commits":9}
not JSON
{"msg":"hypervisor starts","id":"aa","commits":5}
{"msg":"hypervisor starts","id":"bb","commits":7}
`
	got, err := commitsIn([]byte(log), "aa")
	if err != nil || got != 5 {
		t.Errorf("%d, %v; want 5", got, err)
	}
	if _, err := commitsIn([]byte(log), vm.ID("cc")); err == nil || !strings.Contains(err.Error(), "tells of no hypervisor of this VM") {
		t.Errorf("a VM that the log does not know: %v", err)
	}
	file := filepath.Join(t.TempDir(), "firecracker.log")
	for _, c := range []struct {
		log  string
		want time.Time
	}{
		{`2026-11-23T14:59:41.014356780 [74f259c6d366:main:INFO] Running Firecracker v1.12.1
2026-11-23T14:59:42.014356780 [74f259c6d366:main:INFO] Listening on API socket
`, time.Date(2026, 11, 23, 14, 59, 41, 14356780, time.UTC)},
		{`2026-11-23T14:59:41.014356780 [74f259c6d366:main:INFO] Running Firecracker v1.12.1
2026-11-23T15:01:02.5 [74f259c6d366:main:INFO] Running Firecracker v1.12.1
`, time.Date(2026, 11, 23, 15, 1, 2, 500000000, time.UTC)},
		{"2026-11-23T14:59:41.014356780 [74f259c6d366:main:INFO] Listening on API socket\n", time.Time{}},
		{"once [74f259c6d366:main:INFO] Running Firecracker v1.12.1\n", time.Time{}},
	} {
		if err := os.WriteFile(file, []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if word, err := lastStart(file); !word.Equal(c.want) || (err == nil) == c.want.IsZero() {
			t.Errorf("%s, %v of\n%s", word, err, c.log)
		}
	}
}

func TestWitness(t *testing.T) {
	w := witness{ready: make(chan readiness, 1)}
	for _, e := range []guest.Event{
		{Hello: &agentproto.Hello{}},
		{Progress: &agentproto.Progress{Stage: agentproto.StageKernel, Uptime: 3 * ms}},
		{Progress: &agentproto.Progress{Stage: agentproto.StageInit, Uptime: 5 * ms}},
		{Ready: &agentproto.Ready{Uptime: 9 * ms}},
		{Ready: &agentproto.Ready{Uptime: 11 * ms}}, // a guest may say anything twice
	} {
		w.hear(e)
	}
	want := []op.Stage{
		{Name: "guest.kernel", Duration: 3 * ms, Done: true},
		{Name: "guest.init", Duration: 2 * ms, Done: true},
		{Name: "guest.services", Duration: 4 * ms, Done: true},
	}
	if r := <-w.ready; r.clock != 9*ms || !cmp.Equal(want, r.stages) {
		t.Errorf("%v %s", r.clock, cmp.Diff(want, r.stages))
	}
}
