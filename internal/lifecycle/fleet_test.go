package lifecycle_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// Whatever a VM costs the daemon is given back with it.
func TestAFleetLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("warm"))
	w.must(w.end(w.m.Delete(t.Context(), alice, "warm", lifecycle.DeleteRequest{Force: true, Now: true})))
	before := runtime.NumGoroutine()
	each := func(do func(ctx context.Context, name string) error) {
		eg, ctx := errgroup.WithContext(t.Context())
		eg.SetLimit(8)
		for i := range 60 {
			eg.Go(func() error { return do(ctx, fmt.Sprintf("vm-%d", i)) })
		}
		w.must(eg.Wait())
	}
	each(func(ctx context.Context, name string) error {
		return w.end(w.m.Create(ctx, alice, lifecycle.CreateRequest{Name: name, Spec: vm.Spec{Memory: 64 * vm.MiB}}))
	})
	if during := runtime.NumGoroutine(); during < before+30 { // one a VM, and "before" may hold one that was about to end
		t.Errorf("%d goroutines with 60 VMs, %d without: nothing is measured", during, before)
	}
	each(func(ctx context.Context, name string) error {
		return w.end(w.m.Delete(ctx, alice, name, lifecycle.DeleteRequest{Force: true, Now: true}))
	})
	w.holds()
	if n := w.host.Listeners(); n != 0 {
		t.Errorf("%d agents are still listened for", n)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for after := runtime.NumGoroutine(); after > before; after = runtime.NumGoroutine() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d goroutines after all were deleted, %d before", after, before)
		}
	}
}
