package bench

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/op"
)

// creates are some at once that take so long together. Each begins after the one before.
func creates(took time.Duration) CrowdCreates {
	last := at(took)
	return CrowdCreates{DaemonCPU: took / 10, Operations: []op.Operation{
		{Created: at(10 * ms), Ended: last, Stages: []op.Stage{{Name: "guest", Started: at(20 * ms), Duration: took / 2}}},
		{Created: at(0), Ended: last.Add(-ms), Stages: []op.Stage{{Name: "guest", Started: at(10 * ms), Duration: took / 2}}},
	}}
}

func crowded(rounds int, cold time.Duration) Crowded {
	m := Crowded{Image: "tiny", Guests: 2}
	for range rounds {
		m.Rounds = append(m.Rounds, CrowdRound{Bare: 1000 * ms, Cold: creates(cold), Warm: creates(200 * ms)})
	}
	return m
}

func TestCrowd(t *testing.T) {
	for _, c := range []struct {
		rounds int
		cold   time.Duration
		ok     bool
	}{{5, 1150 * ms, true}, {5, 1151 * ms, false}, {4, 1151 * ms, true}} {
		r := SummarizeCrowd(crowded(c.rounds, c.cold))
		if r.OK != c.ok || r.Cold.Median != float64(c.cold)/float64(ms) || r.Warm.Median != 200 {
			t.Errorf("%v: OK is %v, %+v", c, r.OK, r)
		}
	}
	want := []Share{{Stage: "request", Median: 10, Percent: 1}, {Stage: "guest", Median: 500, Percent: 50}}
	if diff := cmp.Diff(want, SummarizeCrowd(crowded(1, 1000*ms)).Stages); diff != "" {
		t.Error(diff)
	}
}

func TestCrowdText(t *testing.T) {
	golden(t, "crowd.txt", SummarizeCrowd(crowded(5, 1200*ms)).Text)
}
