package metrics_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/metrics"
)

func TestPage(t *testing.T) {
	var p metrics.Page
	p.Info("build_info", `help with a \ and a
new line`, [2]string{"version", "1"}, [2]string{"go", `a"b\c` + "\n\xff"})
	p.Value("free_bytes", "f", 1<<53)
	p.Total("commits_total", "c", 0.5)
	p.Gauge("vms", "v", "state", map[string]float64{"running": 2, "crashed": 0})
	c := metrics.Counter{Name: "ops_total", Help: "o", Labels: []string{"kind", "outcome"}}
	c.Print(&p)
	c.Add("vm.start", "done")
	c.Add("vm.start", "done")
	c.Add("vm.create", "failed")
	c.Print(&p)
	h := metrics.Histogram{Name: "took_seconds", Help: "t", Labels: []string{"stage"}, Bounds: []time.Duration{time.Millisecond, time.Second}}
	for _, took := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Minute} {
		h.Observe(took, "guest")
	}
	h.Print(&p)
	want := `# HELP build_info help with a \\ and a\nnew line
# TYPE build_info gauge
build_info{version="1",go="a\"b\\c\n�"} 1
# HELP free_bytes f
# TYPE free_bytes gauge
free_bytes 9.007199254740992e+15
# HELP commits_total c
# TYPE commits_total counter
commits_total 0.5
# HELP vms v
# TYPE vms gauge
vms{state="crashed"} 0
vms{state="running"} 2
# HELP ops_total o
# TYPE ops_total counter
# HELP ops_total o
# TYPE ops_total counter
ops_total{kind="vm.create",outcome="failed"} 1
ops_total{kind="vm.start",outcome="done"} 2
# HELP took_seconds t
# TYPE took_seconds histogram
took_seconds_bucket{stage="guest",le="0.001"} 2
took_seconds_bucket{stage="guest",le="1"} 3
took_seconds_bucket{stage="guest",le="+Inf"} 4
took_seconds_sum{stage="guest"} 60.002000001
took_seconds_count{stage="guest"} 4
`
	if d := cmp.Diff(want, p.String()); d != "" {
		t.Error(d)
	}
}

// TestSeriesAreBounded holds that labels which somebody else chooses fill nothing, and that nothing is lost.
func TestSeriesAreBounded(t *testing.T) {
	c := metrics.Counter{Name: "c", Labels: []string{"a", "b"}}
	h := metrics.Histogram{Name: "h", Labels: []string{"a"}, Bounds: []time.Duration{time.Second}}
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			c.Add(fmt.Sprint(i), "x")
			h.Observe(0, fmt.Sprint(i))
		})
	}
	wg.Wait()
	var p metrics.Page
	c.Print(&p)
	h.Print(&p)
	text := p.String()
	if n := strings.Count(text, "\nc{"); n != 201 || !strings.Contains(text, "\nc{a=\"other\",b=\"other\"} 800\n") {
		t.Errorf("%d series of the counter", n)
	}
	if n := strings.Count(text, "\nh_count{"); n != 201 || !strings.Contains(text, "\nh_count{a=\"other\"} 800\n") {
		t.Errorf("%d series of the histogram", n)
	}
}
