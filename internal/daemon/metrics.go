package daemon

import (
	"context"
	"os"
	"runtime"
	"time"

	"banger/internal/buildinfo"
	"banger/internal/host/proc"
	"banger/internal/metrics"
	"banger/internal/op"
	"banger/internal/vm"
)

// counts are what this process has counted since it started. It is an op.Watcher.
type counts struct {
	operations metrics.Counter
	took       metrics.Histogram
	stages     metrics.Histogram
	refusals   metrics.Counter
}

func newCounts() *counts {
	bounds := []time.Duration{
		time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
		500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 10 * time.Minute,
	}
	return &counts{
		operations: metrics.Counter{Name: "banger_operations_total", Help: "Operations that ended, by kind and outcome.", Labels: []string{"kind", "outcome"}},
		took:       metrics.Histogram{Name: "banger_operation_duration_seconds", Help: "How long operations took that ended well.", Labels: []string{"kind"}, Bounds: bounds},
		stages:     metrics.Histogram{Name: "banger_stage_duration_seconds", Help: "How long stages of operations took that ended well.", Labels: []string{"kind", "stage"}, Bounds: bounds},
		refusals:   metrics.Counter{Name: "banger_admission_refusals_total", Help: "VMs and images that were not admitted, by what was lacking: memory, disk or quota.", Labels: []string{"lack"}},
	}
}

// StageEnded implements op.Watcher.
func (c *counts) StageEnded(o op.Operation, s op.Stage) {
	if s.Outcome == op.Done {
		c.stages.Observe(s.Duration, o.Kind, s.Name)
	}
}

// OperationEnded implements op.Watcher.
func (c *counts) OperationEnded(o op.Operation) {
	c.operations.Add(o.Kind, string(o.State))
	if o.State == op.Done {
		c.took.Observe(o.Ended.Sub(o.Created), o.Kind)
	}
}

func (c *counts) refused(lack string) { c.refusals.Add(lack) }

// Metrics is a page of figures about this daemon and all VMs together. It names no VM: their number is bounded by
// nothing, and who may read the page need not know of them.
func (d *Daemon) Metrics(ctx context.Context) (string, error) {
	var p metrics.Page
	build := buildinfo.Current()
	p.Info("banger_build_info", "The daemon's build.", [2]string{"version", build.Version}, [2]string{"commit", build.Commit}, [2]string{"go", build.Go})
	if err := d.countThings(ctx, &p); err != nil {
		return "", err
	}
	d.counts.operations.Print(&p)
	d.counts.took.Print(&p)
	d.counts.stages.Print(&p)
	d.counts.refusals.Print(&p)
	if err := d.measureDisk(&p); err != nil {
		return "", err
	}
	if err := d.measureSelf(&p); err != nil {
		return "", err
	}
	return p.String(), nil
}

// countThings writes how many there are of what the daemon keeps.
func (d *Daemon) countThings(ctx context.Context, p *metrics.Page) error {
	all, err := d.store.VMs(ctx)
	if err != nil {
		return err
	}
	states := map[string]float64{}
	for _, s := range vm.States() { // one without a VM is zero, not absent: rules compare it
		states[string(s)] = 0
	}
	var vcpu, memory float64
	for _, v := range all {
		states[string(v.State)]++
		if v.State == vm.Running {
			vcpu += float64(v.Spec.VCPU)
			memory += float64(v.Spec.Memory)
		}
	}
	p.Gauge("banger_vms", "VMs by state.", "state", states)
	p.Value("banger_running_vcpus", "vCPUs of running VMs.", vcpu)
	p.Value("banger_running_memory_bytes", "Memory of running VMs, as their guests see it.", memory)
	images, err := d.images.List()
	if err != nil {
		return err
	}
	p.Value("banger_images", "Images.", float64(len(images)))
	running := 0.0
	for _, o := range d.tracker.List() {
		if o.State == op.Underway {
			running++
		}
	}
	p.Value("banger_operations_running", "Operations that run now.", running)
	events, err := d.store.LastEvent(ctx)
	if err != nil {
		return err
	}
	p.Total("banger_events_total", "Events since the database was made.", float64(events))
	p.Total("banger_commits_total", "Durable commits of the database.", float64(d.store.Commits()))
	p.Total("banger_children_total", "Programs that the daemon ran.", float64(d.children.Load()))
	return nil
}

func (d *Daemon) measureDisk(p *metrics.Page) error {
	space, err := capacity{dir: d.layout.State}.Space()
	if err != nil {
		return err
	}
	p.Value("banger_disk_size_bytes", "Size of the state directory's file system.", float64(space.Size))
	p.Value("banger_disk_free_bytes", "What is free of it.", float64(space.Free))
	p.Value("banger_disk_low_water_bytes", "Below this much running VMs are paused.", float64(rules(d.cfg).Mark(space.Size)))
	return nil
}

// measureSelf writes what Prometheus's own libraries call the same.
func (d *Daemon) measureSelf(p *metrics.Page) error {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return err
	}
	used, err := proc.Use(self, false)
	if err != nil {
		return err
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	p.Total("process_cpu_seconds_total", "CPU time of the daemon.", used.CPU.Seconds())
	p.Value("process_resident_memory_bytes", "Memory that the daemon holds.", float64(used.RSS))
	p.Value("process_open_fds", "Descriptors that the daemon has open.", float64(len(open)-1)) // but for the one that is read
	p.Value("process_start_time_seconds", "When the daemon started, in seconds since 1970.", float64(d.started.UnixNano())/1e9)
	p.Value("go_goroutines", "Goroutines of the daemon.", float64(runtime.NumGoroutine()))
	return nil
}
