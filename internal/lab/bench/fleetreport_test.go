package bench_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"banger/internal/lab/bench"
)

// fleeted is a run of 200 creates, of which the last took growth times as long as the first.
func fleeted(growth float64) bench.Fleeted {
	m := bench.Fleeted{VMs: 200, RSS: 100 << 20, Before: bench.Held{Goroutines: 9, Descriptors: 20}, After: bench.Held{Goroutines: 9, Descriptors: 20}}
	for i := range m.VMs {
		took := 10 * time.Millisecond
		if i >= 100 {
			took = time.Duration(growth * float64(took))
		}
		m.Creates = append(m.Creates, bench.FleetCreate{Own: took, CPU: took})
	}
	m.Few, m.Many = []time.Duration{5 * time.Millisecond}, []time.Duration{10 * time.Millisecond}
	return m
}

func TestFleetReport(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spoil  func(*bench.Fleeted)
		growth float64
		broken string // the limits' names, as far as they are broken
	}{
		{"all is well", func(*bench.Fleeted) {}, 1.2, ""},
		{"creates become slow", func(*bench.Fleeted) {}, 1.4, "create, banger's own time of the last 50 over the first; create, CPU of the daemon of the last 50 over the first"},
		{"lists do", func(m *bench.Fleeted) { m.Many[0] = 16 * time.Millisecond }, 1, "vm list, CPU with 200 VMs over 10"},
		{"who watches costs much", func(m *bench.Fleeted) { m.Watched = 0.3 }, 1, "vm stats of all VMs each second, share of a core that the daemon takes"},
		{"it grows", func(m *bench.Fleeted) { m.RSS = 151 << 20 }, 1, "daemon, resident with all VMs"},
		{"it leaks", func(m *bench.Fleeted) { m.After = bench.Held{Goroutines: 10, Descriptors: 21} }, 1, "goroutines more after all were deleted; descriptors more after all were deleted"},
		{"it holds less than before", func(m *bench.Fleeted) { m.After = bench.Held{} }, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := fleeted(tt.growth)
			tt.spoil(&m)
			r := bench.SummarizeFleet(m)
			var broken []string
			for _, l := range r.Limits {
				if !l.OK {
					broken = append(broken, l.Name)
				}
			}
			if got := strings.Join(broken, "; "); got != tt.broken || r.OK != (got == "") {
				t.Errorf("broken are %q, OK is %v; want %q", got, r.OK, tt.broken)
			}
			var out bytes.Buffer
			if err := r.Text(&out); err != nil || strings.Count(out.String(), "TOO MUCH") != len(broken) {
				t.Errorf("%v\n%s", err, &out)
			}
		})
	}
}
