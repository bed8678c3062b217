package lifecycle_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

func (w *world) stats(r lifecycle.StatsRequest) []vm.Stats {
	w.t.Helper()
	all, err := w.m.Stats(w.t.Context(), alice, r)
	w.must(err)
	return all
}

// TestStats holds that each figure is whose it should be, and that what nobody knows is absent instead of zero.
func TestStats(t *testing.T) {
	w := newWorld(t)
	w.host.SetRoom(func(r *hosttest.Room) { r.File = 7 * vm.MiB })
	w.must(w.create("a"))
	w.must(w.create("b"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "b", 0)))
	want := []vm.Stats{
		{
			Name: "a", State: vm.Running, VCPU: 2, Memory: vm.GiB,
			Host:    &vm.Usage{CPU: 3 * time.Second, RSS: 100 * vm.MiB, PSS: 90 * vm.MiB},
			Guest:   &vm.GuestUsage{CPU: time.Second, Total: vm.GiB, Available: vm.GiB / 4},
			Root:    vm.DiskUsage{Allocated: 7 * vm.MiB, Size: vm.GiB},
			Work:    vm.DiskUsage{Allocated: 7 * vm.MiB, Size: 8 * vm.GiB},
			Network: &vm.Traffic{RxBytes: 2000, RxPackets: 20, TxBytes: 1000, TxPackets: 10},
		},
		{
			Name: "b", State: vm.Stopped, VCPU: 2, Memory: vm.GiB,
			Root: vm.DiskUsage{Allocated: 7 * vm.MiB, Size: vm.GiB}, Work: vm.DiskUsage{Allocated: 7 * vm.MiB, Size: 8 * vm.GiB},
		},
	}
	ignore := cmp.Options{cmpopts.IgnoreFields(vm.Stats{}, "ID", "At"), cmpopts.IgnoreFields(vm.GuestUsage{}, "At")}
	if d := cmp.Diff(want, w.stats(lifecycle.StatsRequest{Shared: true}), ignore); d != "" {
		t.Error(d)
	}
	if all := w.stats(lifecycle.StatsRequest{VMs: []string{"b", "a", "b"}}); len(all) != 2 || all[0].Name != "b" || all[1].Host.PSS != 0 {
		t.Errorf("two that were named: %+v", all)
	}
	if asked := w.host.Asked(); asked != 1 {
		t.Errorf("a guest was asked %d times within moments", asked)
	}
	if _, err := w.m.Stats(t.Context(), bob, lifecycle.StatsRequest{VMs: []string{"a"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("another's VM: %v", err)
	}
	if all, err := w.m.Stats(t.Context(), bob, lifecycle.StatsRequest{}); err != nil || len(all) != 0 {
		t.Errorf("nobody's VMs: %v, %v", all, err)
	}
	none, err := vm.ParseSelector([]string{"team=x"})
	w.must(err)
	if all := w.stats(lifecycle.StatsRequest{Labels: none}); len(all) != 0 {
		t.Errorf("VMs without the label: %v", all)
	}
}

// TestStatsOfSilentGuests holds that a guest which cannot say what it uses costs nobody the rest.
func TestStatsOfSilentGuests(t *testing.T) {
	for name, silence := range map[string]func(*world){
		"too old": func(w *world) { w.host.SetOldAgents(true) },
		"deaf":    func(w *world) { w.host.Guest = hosttest.Deaf },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			silence(w)
			w.must(w.create("dev"))
			for range 2 { // the lack of an answer serves for a while too
				if got := w.stats(lifecycle.StatsRequest{})[0]; got.Guest != nil || got.Host == nil {
					t.Errorf("%+v", got)
				}
			}
			if asked := w.host.Asked(); asked != 1 {
				t.Errorf("it was asked %d times within moments", asked)
			}
		})
	}
}
