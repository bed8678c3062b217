package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// fill leaves so much free on a disk whose low-water mark is at 4 GiB, has the daemon look at it, and waits
// for what it makes of it.
func (w *world) fill(free int64) {
	w.t.Helper()
	w.m.Rules.LowWater = 4 * vm.GiB
	w.host.SetRoom(func(r *hosttest.Room) { r.Space = admission.Space{Free: free, Size: vm.TiB} })
	_, err := w.m.MindDisk(w.t.Context())
	w.must(err)
	w.must(w.m.Idle(w.t.Context()))
}

// turned returns how the last operation of this kind ended.
func (w *world) turned(kind string) error {
	for _, o := range w.m.Tracker.List() { // newest first
		if o.Kind == kind && o.Error != nil {
			return o.Error
		} else if o.Kind == kind {
			return nil
		}
	}
	if w.host.Crashed() {
		return hosttest.ErrCrashed
	}
	w.t.Errorf("no %s was begun", kind)
	return nil
}

func (w *world) pausedText(name string) []string {
	text := w.runningText(name)
	text[2] += " paused"
	return text
}

// resumed lets the disk have room again and checks that dev is as settled has it: none is left paused.
func resumed(t *testing.T, w *world) {
	t.Helper()
	w.fill(vm.TiB)
	settled(t, w)
}

func TestAFullDiskPausesVMs(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.create("idle"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "idle", 0)))

	w.fill(4*vm.GiB - 1)
	v := w.find("dev")
	if v.State != vm.Paused || v.Desired != vm.Running || !strings.HasPrefix(v.Reason, "the host's disk is nearly full: 4 GiB are free, less than the low-water mark of 4 GiB; it runs on by itself when there is space again") {
		t.Errorf("dev is %s, %s: %s", v.State, v.Desired, v.Reason)
	}
	if idle := w.find("idle"); idle.State != vm.Stopped {
		t.Errorf("idle is %s", idle.State)
	}
	w.must(w.end(w.m.Delete(t.Context(), alice, "idle", lifecycle.DeleteRequest{Now: true})))
	w.holds(w.pausedText("dev")...)

	// Who wants to use it is told why that cannot be.
	want := `ping VM "dev": it is paused: ` + v.Reason
	_, _, err := w.m.Ping(t.Context(), alice, "dev")
	if want = strings.Replace(want, "ping", "reach", 1); err == nil || err.Error() != want || !fault.Is(err, fault.WrongState) || !strings.Contains(fault.From(err).Hint, "free some space") {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := w.end(w.m.Start(t.Context(), alice, "dev")); err == nil || err.Error() != strings.Replace(want, "reach", "start", 1) {
		t.Errorf("got %v", err)
	}
	if err := w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Now: true})); err == nil || err.Error() != `delete VM "dev": it is paused` {
		t.Errorf("got %v", err)
	}

	w.fill(4 * vm.GiB) // not enough to go on
	w.holds(w.pausedText("dev")...)
	w.host.Sleep(time.Hour)
	w.fill(5 * vm.GiB)
	if v := w.await("dev", vm.Running); v.Reason != "" {
		t.Errorf("dev runs, and says %q", v.Reason)
	}
	w.holds(w.runningText("dev")...)
	w.m.Close() // waits for all that was begun
	if behind := w.host.Behind(v.ID); behind != 0 {
		t.Errorf("its guest was not told the time: it is %s behind", behind)
	}
}

// TestAPausedVMOutlivesTheDaemon restarts it while the disk is full, and when it no longer is.
func TestAPausedVMOutlivesTheDaemon(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.fill(0)
	w.restart()
	w.fill(0)
	if v := w.find("dev"); v.State != vm.Paused || v.Reason == "" {
		t.Errorf("dev is %s: %s", v.State, v.Reason)
	}
	w.holds(w.pausedText("dev")...)
	w.restart()
	w.fill(vm.TiB)
	w.await("dev", vm.Running)
	w.holds(w.runningText("dev")...)
}

// TestAPausedVMIsNotTakenForAHaltedOne pauses a guest that is on its way down.
func TestAPausedVMIsNotTakenForAHaltedOne(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.fill(0)
	id := w.find("dev").ID
	w.host.Words(id, "reboot: Power down")
	// Three looks are enough to find a guest halted.
	w.waitFor("its vCPUs have been looked at", func() bool { return w.host.Looks(id) > 6 })
	w.restart()
	w.host.Words(id, "reboot: Power down")
	w.waitFor("they have been looked at again", func() bool { return w.host.Looks(id) > 12 })
	w.holds(w.pausedText("dev")...)
	w.host.Poweroff(id)
	w.fill(vm.TiB)
	w.await("dev", vm.Stopped)
}

func TestAPausedVMIsEnded(t *testing.T) {
	for name, end := range map[string]func(*world) error{
		"stop": func(w *world) error { return w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)) },
		"kill": func(w *world) error { return w.end(w.m.Kill(w.t.Context(), alice, "dev")) },
		"delete": func(w *world) error {
			return w.end(w.m.Delete(w.t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true, Now: true}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.create("dev"))
			w.fill(0)
			w.host.FailAt(0)
			w.must(end(w))
			labels := strings.Join(w.host.Effects(), ", ")
			if orderly := strings.Contains(labels, "resume hypervisor, ask for shutdown"); orderly != (name == "stop") {
				t.Errorf("effects: %s", labels)
			}
			w.fill(0) // nothing is left to pause
			w.fill(vm.TiB)
			resumed(t, w)
		})
	}
}

// TestAPauseThatFailsIsTriedAgain, but not at every look.
func TestAPauseThatFailsIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.host.FailAt(1)
	w.fill(0)
	if err := w.turned(lifecycle.KindPause); err == nil || err.Error() != `pause VM "dev": pause hypervisor: injected failure` {
		t.Errorf("got %v", err)
	}
	w.host.FailAt(1)
	w.fill(0)
	if made := w.host.Effects(); len(made) != 0 {
		t.Errorf("tried at once: %v", made)
	}
	w.host.FailAt(0)
	w.restart()
	w.fill(0)
	w.holds(w.pausedText("dev")...)
}

// TestTrashGoesFirst empties the trash as far as that helps, the oldest first.
func TestTrashGoesFirst(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"oldest", "older", "old"} {
		w.must(w.create(name))
		w.trash(name)
	}
	left := func(want string) func() bool {
		return func() bool {
			var names []string
			for _, v := range w.m.Trash(alice) {
				names = append(names, v.Name)
			}
			return strings.Join(names, " ") == want
		}
	}
	w.must(w.create("dev"))
	w.fill(4*vm.GiB + vm.MiB) // scarce: what is destroyed gives 1 GiB back
	w.waitFor("the oldest is gone", left("old older"))
	w.must(w.mind()) // enough: no more is spared
	if !left("old older")() {
		t.Error("more of the trash went than was needed")
	}
	w.fill(2*vm.GiB + vm.MiB) // low: paused at once, until there is space
	if v := w.find("dev"); v.State != vm.Paused {
		t.Errorf("dev is %s", v.State)
	}
	w.waitFor("the trash is empty", func() bool {
		w.must(w.mind())
		return left("")()
	})
}

func (w *world) mind() error {
	_, err := w.m.MindDisk(w.t.Context())
	return err
}

func (w *world) waitFor(what string, yes func() bool) {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for !yes() {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}
