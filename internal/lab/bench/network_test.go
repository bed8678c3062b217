package bench_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"banger/internal/lab/bench"
)

func TestNetworkReport(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spoil  func(*bench.Networked)
		broken string // the limits' names, as far as they are broken
	}{
		{"all is well", func(*bench.Networked) {}, ""},
		{"adds become slow", func(m *bench.Networked) { m.Many[0] = 14 * time.Millisecond }, "add of guest 1000 over guest 10"},
		{"those with a list do", func(m *bench.Networked) { m.ManyList[0] = 21 * time.Millisecond }, "the same, with an allow list"},
		{"rules become more", func(m *bench.Networked) { m.ManyRules++ }, "rules more with 1000 guests than with 10"},
		{"a rebuild is slow", func(m *bench.Networked) { m.Rebuilds[0] = 1100 * time.Millisecond }, "rebuild with all guests"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			took := func() []time.Duration { return []time.Duration{10 * time.Millisecond} }
			m := bench.Networked{Guests: 1000, Few: took(), Many: took(), FewList: took(), ManyList: took(), Rebuilds: took(), FewRules: 60, ManyRules: 60}
			tt.spoil(&m)
			r := bench.SummarizeNetwork(m)
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

func TestNetwork(t *testing.T) {
	m, err := bench.Network{Guests: 40, Runs: 1}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.FewRules == 0 || m.ManyRules != m.FewRules || m.Elements < 40 || len(m.Many) != 1 || len(m.ManyList) != 1 || len(m.Rebuilds) != 1 {
		t.Errorf("measured %+v", m)
	}
}
