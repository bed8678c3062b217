package lifecycle_test

import (
	"slices"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

func (w *world) createKept(name string) {
	w.t.Helper()
	w.must(w.end(w.m.Create(w.t.Context(), alice, lifecycle.CreateRequest{Name: name, Restart: vm.RestartAlways})))
}

// awaitAgain waits until the VM runs in another process than before.
func (w *world) awaitAgain(before vm.VM) vm.VM {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		v := w.find(before.Name)
		if v.State == vm.Running && v.Process.PID != before.Process.PID && w.m.Idle(w.t.Context()) == nil {
			return v
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%s is %s (%s), and did not come back", v.Name, v.State, v.Reason)
		}
	}
}

// calm waits until nothing goes on and no VM is due.
func (w *world) calm() {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		w.must(w.m.Idle(w.t.Context()))
		all, err := w.m.List(w.t.Context(), root)
		w.must(err)
		if !slices.ContainsFunc(all, func(v vm.VM) bool { return v.Due() || v.State == vm.Starting }) {
			return
		}
		select {
		case <-deadline:
			w.t.Fatalf("still due: %+v", all)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestKeptUp holds that a VM whose restart policy is always comes back whatever ends it, but for its users.
func TestKeptUp(t *testing.T) {
	for name, end := range map[string]func(*world, vm.ID){
		"crash":     func(w *world, id vm.ID) { w.host.Crash(id) },
		"power-off": func(w *world, id vm.ID) { w.host.Poweroff(id) },
		"reboot":    func(w *world, id vm.ID) { w.host.Reboot(id) },
		"reboot of the host": func(w *world, id vm.ID) {
			w.m.Close()
			w.host.Crash(id)
			w.bootID = "another"
			w.restart()
		},
		"crash without a daemon": func(w *world, id vm.ID) {
			w.m.Close()
			w.host.Crash(id)
			w.restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.createKept("dev")
			before := w.find("dev")
			end(w, before.ID)
			w.awaitAgain(before)
			w.holds(w.runningText("dev")...)
			w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
			w.restart()
			w.await("dev", vm.Stopped)
			w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Now: true})))
			w.holds()
		})
	}
}

// TestNotKeptUp holds that others stay down.
func TestNotKeptUp(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.host.Crash(w.find("dev").ID)
	w.await("dev", vm.Crashed)
	w.m.Close()
	w.bootID = "another"
	w.restart()
	if v := w.await("dev", vm.Crashed); v.Due() {
		t.Error("it is due")
	}
}

// TestKeptUpOnceItCan holds that a VM that cannot be started now is tried until it can, unless it is stopped meanwhile.
func TestKeptUpOnceItCan(t *testing.T) {
	tries := func(w *world) (n int) {
		for _, o := range w.m.Tracker.List() {
			if o.Kind == lifecycle.KindRestart && o.State.Ended() {
				n++
			}
		}
		return n
	}
	refuse := func(w *world) vm.VM {
		w.createKept("dev")
		before := w.find("dev")
		w.preflight.Store(fault.New(fault.Requirement, "KVM is not usable"))
		w.host.Crash(before.ID)
		deadline := time.After(20 * time.Second)
		for tries(w) < 3 {
			select {
			case <-deadline:
				t.Fatalf("tried %d times", tries(w))
			case <-time.After(time.Millisecond):
			}
		}
		return before
	}
	t.Run("it can", func(t *testing.T) {
		w := newWorld(t)
		before := refuse(w)
		w.preflight.Store(nil)
		w.awaitAgain(before)
	})
	t.Run("it is stopped", func(t *testing.T) {
		w := newWorld(t)
		refuse(w)
		w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
		w.preflight.Store(nil)
		if v := w.await("dev", vm.Stopped); v.Due() {
			t.Error("it is due")
		}
		w.restart()
		w.await("dev", vm.Stopped)
	})
	t.Run("it fails to boot", func(t *testing.T) {
		w := newWorld(t)
		w.createKept("dev")
		before := w.find("dev")
		w.host.Behave(hosttest.Dies)
		w.host.Crash(before.ID)
		deadline := time.After(20 * time.Second)
		for tries(w) < 2 {
			select {
			case <-deadline:
				t.Fatalf("tried %d times", tries(w))
			case <-time.After(time.Millisecond):
			}
		}
		w.host.Behave(hosttest.Healthy)
		w.awaitAgain(before)
	})
}
