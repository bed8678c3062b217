package lifecycle_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

func warmWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.must(w.end(w.m.WarmImage(t.Context(), alice, lifecycle.WarmRequest{})))
	w.host.FailAt(0)
	return w
}

// ops lists the operations of a kind.
func (w *world) ops(kind string) []op.Operation {
	return slices.DeleteFunc(w.m.Tracker.List(), func(o op.Operation) bool { return o.Kind != kind })
}

// awaitOp waits for the end of the first operation of a kind.
func (w *world) awaitOp(kind string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for len(w.ops(kind)) == 0 || !w.ops(kind)[0].State.Ended() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("no %s ends", kind)
		case <-time.After(time.Millisecond):
		}
	}
}

func (w *world) did(label string) bool { return slices.Contains(w.host.Effects(), label) }

func TestACreateGoesOnFromAGoldenSnapshot(t *testing.T) {
	w := warmWorld(t)
	w.must(w.create("dev"))
	if v := w.find("dev"); v.Golden == "" || v.State != vm.Running {
		t.Errorf("it is %s, of snapshot %q", v.State, v.Golden)
	}
	if w.did("start hypervisor") || !w.did("restore hypervisor") {
		t.Errorf("it was booted: %v", w.host.Effects())
	}
	// Off the network until it is its own machine.
	effects := w.host.Effects()
	if identity, heard := slices.Index(effects, "adopt identity"), slices.Index(effects, "admit tap"); identity < 0 || heard < identity {
		t.Errorf("it was heard before it had its identity: %v", effects)
	}
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	if v := w.find("dev"); v.Golden != "" {
		t.Error("a stopped VM has a snapshot's memory")
	}
	w.host.FailAt(0)
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	if !w.did("start hypervisor") {
		t.Errorf("a start is no boot: %v", w.host.Effects())
	}
}

func TestWhatAGoldenSnapshotDoesNotFitIsBooted(t *testing.T) {
	for name, r := range map[string]lifecycle.CreateRequest{
		"cold":           {Cold: true},
		"more memory":    {Spec: vm.Spec{Memory: 2 * vm.GiB}},
		"fewer vCPUs":    {Spec: vm.Spec{VCPU: 1}},
		"a smaller disk": {Spec: vm.Spec{WorkDisk: vm.GiB}},
	} {
		t.Run(name, func(t *testing.T) {
			w := warmWorld(t)
			r.Name = "dev"
			w.must(w.end(w.m.Create(t.Context(), alice, r)))
			if !w.did("start hypervisor") || w.did("restore hypervisor") {
				t.Errorf("it was not booted: %v", w.host.Effects())
			}
		})
	}
}

func TestALargerDiskGrowsAfterTheRestore(t *testing.T) {
	w := warmWorld(t)
	w.must(w.end(w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev", Spec: vm.Spec{WorkDisk: 100 * vm.GiB}})))
	if !w.did("restore hypervisor") || !w.did("redrive") || !w.did("grow file system") {
		t.Errorf("it went %v", w.host.Effects())
	}
}

func TestASnapshotThatIsOfNoUseIsToldOf(t *testing.T) {
	for name, spoil := range map[string]func(*hosttest.Host){
		"altered":                 (*hosttest.Host).Alter,
		"restore is refused":      func(h *hosttest.Host) { h.FailOn(hosttest.Effect{Label: "restore hypervisor", Nth: 1}) },
		"its agent does not know": func(h *hosttest.Host) { h.FailOn(hosttest.Effect{Label: "adopt identity", Nth: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := warmWorld(t)
			spoil(w.host)
			w.must(w.create("dev"))
			if !w.did("start hypervisor") {
				t.Errorf("it was not booted: %v", w.host.Effects())
			}
			told := strings.Join(w.ops(lifecycle.KindCreate)[0].Warnings, "\n")
			if !strings.Contains(told, "it was booted, since the prepared snapshot could not be gone on from: ") {
				t.Errorf("nobody was told: %q", told)
			}
		})
	}
}

func TestTheFirstCreatePreparesTheSecond(t *testing.T) {
	w := newWorld(t)
	w.warm = true
	w.boot()
	w.must(w.create("dev"))
	w.awaitOp(lifecycle.KindWarm)
	w.must(w.create("other"))
	if v := w.find("other"); v.Golden == "" {
		t.Error("the second was booted too")
	}
	if n := len(w.ops(lifecycle.KindWarm)); n != 1 {
		t.Errorf("snapshots were taken %d times", n)
	}
}

func TestATemplateIsNobodys(t *testing.T) {
	w := newWorld(t)
	w.host.Behave(hosttest.Silent) // so that it stays
	o, err := w.m.WarmImage(t.Context(), alice, lifecycle.WarmRequest{})
	w.must(err)
	for _, caller := range []vm.Caller{alice, root} {
		if all, err := w.m.List(t.Context(), caller); err != nil || len(all) > 0 {
			t.Errorf("it is listed: %v, %v", all, err)
		}
	}
	if _, err := w.m.WarmImage(t.Context(), alice, lifecycle.WarmRequest{}); !fault.Is(err, fault.InUse) {
		t.Errorf("it is taken twice: %v", err)
	}
	if err := w.end(o, nil); !fault.Is(err, fault.Timeout) {
		t.Errorf("it ended with %v", err)
	}
	w.holds()
}

func TestWhatIsWarmAlreadyIsNotMadeAnew(t *testing.T) {
	w := warmWorld(t)
	w.must(w.end(w.m.WarmImage(t.Context(), alice, lifecycle.WarmRequest{})))
	if w.did("start hypervisor") {
		t.Errorf("it was: %v", w.host.Effects())
	}
}
