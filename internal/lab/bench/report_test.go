package bench

import (
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

// round is one whose create takes total and whose hypervisor writes after own/2, half of what is banger's.
func round(total, own, bare time.Duration) Round {
	return Round{
		Create: Create{
			Command: total + 50*ms, CommandCPU: 30 * ms, DaemonCPU: 70 * ms,
			Hypervisor: at(own / 2), CommitsBefore: 1, Commits: 3, Children: 1,
			Operation: op.Operation{
				Created: at(0), Ended: at(total), State: op.Done,
				Stages: []op.Stage{
					{Name: "nic", Started: at(10 * ms), Duration: 20 * ms},
					{Name: "guest", Started: at(own / 2), Duration: total - own},
					{Name: "guest.kernel", Started: at(own), Duration: (total - own) / 2},
				},
			},
		},
		Bare: Bare{Ready: bare, Stages: []op.Stage{{Name: "guest.kernel", Duration: bare / 2}}},
	}
}

func sample() Measured {
	return Measured{
		Image:  "tiny",
		Rounds: []Round{round(1100*ms, 100*ms, 1000*ms), round(1200*ms, 120*ms, 1000*ms), round(1300*ms, 80*ms, 900*ms)},
		Weight: Weight{Daemon: 30 << 20, Agent: 5 << 20, AgentBinary: 3 << 19, Initrd: 4 << 20, List: []time.Duration{3 * ms, 9 * ms, 4 * ms, 6 * ms}},
	}
}

func TestSummarize(t *testing.T) {
	r := Summarize(sample(), DefaultRatio)
	got := []any{r.OK, r.Ratio, r.PairRatio, r.Ready, r.Command, r.Bare, r.Own, r.CPU, r.Commits, r.Children, r.Limits[1].Value, r.Limits[6].Value}
	want := []any{
		true, 1.2, 1.2,
		Spread{1200, 1100},
		Spread{1250, 1150},
		Spread{1000, 900},
		Spread{100, 80},
		Spread{100, 100},
		int64(3), int64(1), 1.0, 5.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Share{Stage: "request", Median: 10, Percent: 100 * 10.0 / 1200}, r.Stages[0]); diff != "" {
		t.Error(diff)
	}
}

func TestLimits(t *testing.T) {
	for name, change := range map[string]func(*Measured){
		"create over bare boot":                   func(m *Measured) { m.Rounds = []Round{round(1251*ms, 100*ms, 1000*ms)} },
		"durable commits before the guest starts": func(m *Measured) { m.Rounds[2].Create.CommitsBefore = 4 },
		"idle daemon, resident":                   func(m *Measured) { m.Weight.Daemon = 40<<20 + 1 },
		"agent, resident in the guest":            func(m *Measured) { m.Weight.Agent = 17 << 20 },
		"agent binary":                            func(m *Measured) { m.Weight.AgentBinary = 9 << 20 },
		"initrd":                                  func(m *Measured) { m.Weight.Initrd = 13 << 20 },
		"vm list, CPU on the plain machine":       func(m *Measured) { m.Weight.List = []time.Duration{41 * ms} },
	} {
		m := sample()
		change(&m)
		r := Summarize(m, DefaultRatio)
		var over []string
		for _, l := range r.Limits {
			if !l.OK {
				over = append(over, l.Name)
			}
		}
		if diff := cmp.Diff([]string{name}, over); diff != "" || r.OK {
			t.Errorf("%s: ok %v\n%s", name, r.OK, diff)
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
	var b strings.Builder
	if err := Summarize(m, DefaultRatio).Text(&b); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "report.txt")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("differs from %s:\n%s\n%s", golden, diff, b.String())
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
	if err := os.WriteFile(file, []byte("2026-11-23T14:59:41.014356780 [74f259c6d366:main:INFO] Running Firecracker v1.12.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if word, err := firstWord(file); err != nil || !word.Equal(time.Date(2026, 11, 23, 14, 59, 41, 14356780, time.UTC)) {
		t.Errorf("%s, %v", word, err)
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
