package lifecycle_test

import (
	"slices"
	"testing"

	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

// TestWhatGoesDownNeedsNoDescription holds that a VM whose directory was removed by hand, or whose
// disk is full, can still be stopped, killed and deleted.
func TestWhatGoesDownNeedsNoDescription(t *testing.T) {
	for name, down := range map[string]func(*world) error{
		"stop": func(w *world) error { return w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)) },
		"kill": func(w *world) error { return w.end(w.m.Kill(w.t.Context(), alice, "dev")) },
		"end": func(w *world) error {
			w.host.Poweroff(w.find("dev").ID)
			w.await("dev", vm.Stopped)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.create("dev"))
			w.host.LoseDirectory(w.find("dev").ID)
			w.must(down(w))
			w.holds()
			w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Now: true})))
			if all, err := w.m.List(t.Context(), root); err != nil || len(all) > 0 {
				t.Errorf("left: %v, %v", all, err)
			}
		})
	}
}

// vanishing is a catalog whose image is gone after its first listing.
type vanishing struct {
	catalog
	listed *int
}

func (v vanishing) List() ([]image.Manifest, error) {
	if *v.listed++; *v.listed > 1 {
		return nil, nil
	}
	return v.catalog.List()
}

// TestAnImageThatVanishesDuringACreate holds that intent is committed whole, with every record, or
// not at all.
func TestAnImageThatVanishesDuringACreate(t *testing.T) {
	w := newWorld(t)
	w.m = w.manager(vanishing{catalog{list: []image.Manifest{debian()}}, new(int)})
	o, err := w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev"})
	if err == nil {
		err = w.end(o, nil)
	}
	if code(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
	w.holds()
}

// TestAnInterruptedStopIsFinishedInOrder kills the daemon before it has asked the guest. The next one
// must ask it, not pull the plug on what it has not written yet.
func TestAnInterruptedStopIsFinishedInOrder(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.host.CrashAt(1)
	_ = w.end(w.m.Stop(t.Context(), alice, "dev", 0))
	w.restart()
	w.await("dev", vm.Stopped)
	w.holds(w.stoppedText("dev")...)
	if !slices.Contains(w.host.Effects(), "ask for shutdown") {
		t.Errorf("the guest was not asked: %v", w.host.Effects())
	}
}

// TestAVMThatCannotBeTakenBack holds that nothing is left listening for its agent, that one is told
// why it is out of reach, and that it can be ended.
func TestAVMThatCannotBeTakenBack(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.m.Close()
	w.host.FailAt(2) // open vsock, attach hypervisor
	w.boot()
	if n := w.host.Listeners(); n != 0 {
		t.Errorf("%d listeners are left", n)
	}
	_, _, err := w.m.Ping(t.Context(), alice, "dev")
	if code(err) != fault.Unavailable || err.Error() != `reach VM "dev": its hypervisor runs, but this daemon has no hold of it` {
		t.Errorf("got %v", err)
	}
	w.must(w.end(w.m.Kill(t.Context(), alice, "dev")))
	w.holds(w.stoppedText("dev")...)
}

// TestRecoveryDescribesWhatItTakesBack: a daemon that died between the commit of a VM and its
// description left an old one, by which the VM would be rebuilt as half-made.
func TestRecoveryDescribesWhatItTakesBack(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.m.Close()
	w.host.Lose(w.find("dev").ID, "vm.json")
	w.boot()
	w.holds(w.runningText("dev")...)
}

// TestAnOperationThatFailedIsStoredSo: one whose verb committed its beginning and then failed must not
// be told of as under way for ever.
func TestAnOperationThatFailedIsStoredSo(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.host.FailAt(3) // commit stopping, write vm.json, kill hypervisor
	o, err := w.m.Kill(t.Context(), alice, "dev")
	w.must(err)
	if err := w.end(o, nil); err == nil {
		t.Fatalf("it did not fail: %v", w.host.Effects())
	}
	kept, err := w.store.Operation(t.Context(), o.ID)
	w.must(err)
	if kept.State != op.Failed || kept.Error.Op != "kill VM" {
		t.Errorf("stored as %+v", kept)
	}
}

// TestAnAgentThatIsRestartingIsAskedAgain: its supervisor starts it again within a moment, and to pull
// the plug meanwhile would lose what the guest has not written yet.
func TestAnAgentThatIsRestartingIsAskedAgain(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.host.FailAt(3) // commit stopping, write vm.json, ask for shutdown
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	asked := 0
	for _, label := range w.host.Effects() {
		if label == "ask for shutdown" {
			asked++
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times, want 2: %v", asked, w.host.Effects())
	}
	w.holds(w.stoppedText("dev")...)
}

// TestWhatRunsIsNotTakenForFailed holds that a create whose end is committed has ended well, whether or not the
// VM's description could be written once more.
func TestWhatRunsIsNotTakenForFailed(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	effects := w.host.Effects()
	last := len(effects)

	w = newWorld(t)
	w.host.FailAt(last)
	w.must(w.create("dev"))
	if all := w.host.Effects(); len(all) != last || all[last-1] != "write vm.json" {
		t.Errorf("what failed is the last of %q", all)
	}
	if v := w.find("dev"); v.State != vm.Running {
		t.Errorf("dev is %s", v.State)
	}
}
