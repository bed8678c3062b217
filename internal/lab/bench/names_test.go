package bench_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"banger/internal/lab/bench"
)

func TestNamesAreMeasured(t *testing.T) {
	m, err := bench.Names{Rounds: 1, Each: 50 * time.Millisecond}.Run(t.Context())
	if err != nil || len(m.Rounds) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, a := range []bench.Asked{m.Rounds[0].Echo, m.Rounds[0].DNS} {
		if a.Rate <= 0 || a.Sent == 0 || a.Lost != 0 {
			t.Errorf("%+v", a)
		}
	}
}

func TestNamesReport(t *testing.T) {
	for _, c := range []struct {
		dns    float64
		lost   int64
		broken int
	}{{60000, 0, 0}, {51000, 0, 0}, {49000, 0, 1}, {60000, 1, 1}, {1000, 9, 2}} {
		r := bench.SummarizeNames(bench.Named{Rounds: []bench.NamedRound{{Echo: bench.Asked{Rate: 100000, Lost: 7}, DNS: bench.Asked{Rate: c.dns, Lost: c.lost, Sent: 100}}}})
		var out bytes.Buffer
		if err := r.Text(&out); err != nil || r.OK != (c.broken == 0) || strings.Count(out.String(), "TOO MUCH") != c.broken {
			t.Errorf("%+v: %v\n%s", c, err, &out)
		}
	}
}
