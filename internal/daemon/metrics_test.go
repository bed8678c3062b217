package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/imagebuild"
	"banger/internal/op"
	"banger/internal/store"
	"banger/internal/vm"
)

// counting is a daemon that has figures.
func counting(t *testing.T) *Daemon {
	t.Helper()
	d := &Daemon{log: slog.New(slog.DiscardHandler), layout: vm.Layout{State: t.TempDir()}, counts: newCounts(), started: time.Now()}
	d.tracker = op.NewTracker(d.counts)
	d.images = &imagebuild.Builder{Catalog: &imagebuild.Catalog{Dir: d.layout.Images(), Damaged: func(string, error) {}}}
	var err error
	if d.store, err = store.Open(t.Context(), d.layout.State); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// TestMetrics holds which figures there are, each described once, and what is counted of operations.
func TestMetrics(t *testing.T) {
	d := counting(t)
	o := op.Operation{ID: "op-1", Kind: "vm.start", Name: "secret", State: op.Underway, Created: time.Now()}
	job := d.tracker.Begin(o, func() {})
	job.Stage("nic").End(nil)
	job.Stage("guest").End(fault.New(fault.Timeout, "late"))
	job.Finish(fault.New(fault.Timeout, "late"))
	d.tracker.Begin(op.Operation{ID: "op-2", Kind: "vm.start", Created: time.Now()}, func() {}).Finish(nil)
	d.tracker.Begin(op.Operation{ID: "op-3", Kind: "vm.stop", State: op.Underway, Created: time.Now()}, func() {})
	d.counts.refused("memory")
	page, err := d.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`banger_vms{state="running"} 0`,
		`banger_operations_total{kind="vm.start",outcome="done"} 1`,
		`banger_operations_total{kind="vm.start",outcome="failed"} 1`,
		`banger_operation_duration_seconds_count{kind="vm.start"} 1`,
		`banger_stage_duration_seconds_count{kind="vm.start",stage="nic"} 1`,
		`banger_admission_refusals_total{lack="memory"} 1`,
		"banger_operations_running 1", "banger_images 0", "banger_events_total 0",
	} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(page, "secret") || strings.Contains(page, `stage="guest"`) {
		t.Error("it tells of a name, or of a stage that failed")
	}
	var families []string
	for _, m := range regexp.MustCompile("(?m)^# TYPE ([a-z_]+) ").FindAllStringSubmatch(page, -1) {
		families = append(families, m[1])
	}
	doc, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("`((?:banger|process|go)_[a-z_]+)`").FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(families)
	slices.Sort(documented)
	if diff := cmp.Diff(families, documented); diff != "" {
		t.Errorf("documented is otherwise: %s", diff)
	}
	for _, positive := range []string{"process_resident_memory_bytes", "process_open_fds", "go_goroutines", "banger_disk_size_bytes", "banger_disk_low_water_bytes"} {
		if !regexp.MustCompile(`(?m)^` + positive + ` [1-9]`).MatchString(page) {
			t.Errorf("%s is not positive", positive)
		}
	}
}

// TestThePortOfMetrics is there when it is asked for; one that is taken keeps the daemon from nothing.
func TestThePortOfMetrics(t *testing.T) {
	d := counting(t)
	var log bytes.Buffer
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	d.serveMetrics(t.Context())() // nobody asked
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.cfg.Metrics = netip.MustParseAddrPort(taken.Addr().String())
	d.serveMetrics(t.Context())()
	if !strings.Contains(log.String(), "metrics are not served") || !strings.Contains(log.String(), "has that port") {
		t.Errorf("logged was %s", log.String())
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	stop := d.serveMetrics(t.Context())
	defer stop()
	if page := get(t.Context(), t, "http://"+d.cfg.Metrics.String()+"/metrics"); !strings.Contains(page, "banger_vms{") {
		t.Errorf("served was %s", page)
	}
}

func get(ctx context.Context, t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
