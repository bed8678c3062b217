package lifecycle_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

func (w *world) looks(mend bool) []lifecycle.Mended {
	w.t.Helper()
	all, err := w.m.Reconcile(w.t.Context(), mend)
	w.must(err)
	return all
}

// reconcile compares, and returns a line for each finding.
func (w *world) reconcile(mend bool) []string {
	w.t.Helper()
	var lines []string
	for _, f := range w.looks(mend) {
		line := fmt.Sprintf("%s %s", f.Kind, f.Name)
		if f.Name == "" {
			line = fmt.Sprintf("%s %s", f.Kind, f.Subject)
		}
		if f.Err != nil {
			line += ": " + f.Err.Error()
		}
		lines = append(lines, line)
	}
	return lines
}

func (w *world) finds(mend bool, want ...string) {
	w.t.Helper()
	if got := w.reconcile(mend); strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.t.Errorf("found %q, want %q", got, want)
	}
}

// forget removes a VM's row, as a database of last week has none.
func (w *world) forget(name string) vm.VM {
	w.t.Helper()
	v := w.find(name)
	w.must(w.store.Commit(w.t.Context(), vm.Change{VM: v, Remove: true}))
	return v
}

func TestNothingToReconcile(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.create("off"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "off", 0)))
	w.finds(true)
	w.m.Close()
	w.boot()
	w.finds(true)
	w.await("dev", vm.Running)
}

// TestOrphansGo holds that what bears the instance's mark and is nobody's goes, and only when asked.
func TestOrphansGo(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.create("off"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "off", 0)))
	off := w.find("off")
	w.host.Plant("btab12-ffffffff")
	w.host.Plant(off.Lease.TAP)
	before := w.host.Text()
	want := []string{"orphan tap " + off.Lease.TAP, "orphan tap btab12-ffffffff"}
	if off.Lease.TAP > "btab12-ffffffff" {
		want[0], want[1] = want[1], want[0]
	}
	w.finds(false, want...)
	if after := w.host.Text(); after != before {
		t.Errorf("looking changed the host to\n%s", after)
	}
	w.host.FailOn(hosttest.Effect{Label: "remove tap", Nth: 1})
	if got := w.reconcile(true); len(got) != 2 || !strings.HasSuffix(got[0], "injected failure") {
		t.Errorf("got %q", got)
	}
	w.host.FailAt(0)
	w.finds(true, want[0])
	w.finds(true)
	w.must(w.end(w.m.Delete(t.Context(), alice, "off", lifecycle.DeleteRequest{Now: true})))
	w.holds(w.runningText("dev")...)
}

// TestAStrangerIsLeftAlone holds that a VM that the database does not know loses nothing, its devices and its process
// included, until it is adopted.
func TestAStrangerIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	v := w.find("dev")
	w.m.Close()
	w.must(w.store.Commit(t.Context(), vm.Change{VM: v, Remove: true}))
	w.boot()
	w.holds(w.runningText("dev")...)
	w.finds(true, "unknown dev")
	if _, err := w.m.Adopt(t.Context(), bob, "dev", ""); code(err) != fault.NotFound {
		t.Errorf("another's is adopted: %v", err)
	}
	w.must(w.end(w.m.Adopt(t.Context(), alice, "/state/vms/"+string(v.ID), "")))
	if now := w.find("dev"); now.State != vm.Running || now.Lease != v.Lease || *now.Process != *v.Process {
		t.Errorf("it came back as %+v", now)
	}
	w.finds(true)
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.holds(w.stoppedText("dev")...)
}

func TestAdoptUnderAnotherName(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	old := w.forget("dev")
	w.must(w.create("dev"))
	_, err := w.m.Adopt(t.Context(), alice, string(old.ID), "")
	if want := `adopt VM "dev": the name is taken`; err == nil || err.Error() != want || fault.From(err).Hint != "give it another with --name" {
		t.Errorf("got %v, want %s", err, want)
	}
	w.must(w.end(w.m.Adopt(t.Context(), alice, string(old.ID), "other")))
	if v := w.find("other"); v.ID != old.ID || v.State != vm.Stopped || v.Lease.Address == w.find("dev").Lease.Address {
		t.Errorf("it came back as %+v", v)
	}
	_, err = w.m.Adopt(t.Context(), alice, string(old.ID), "")
	if code(err) != fault.AlreadyExists {
		t.Errorf("adopted twice: %v", err)
	}
	w.must(w.end(w.m.Start(t.Context(), alice, "other")))
	w.finds(true)
}

// TestADatabaseOfLastWeek has rows that are older than the VMs: what runs goes on, what was made since is told of, what was
// deleted since is forgotten.
func TestADatabaseOfLastWeek(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.create("gone"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	dev, gone := w.find("dev"), w.find("gone")
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	w.trash("gone")
	now := w.find("dev")

	w.m.Close()
	back := func(v vm.VM) {
		w.must(w.store.Commit(t.Context(), vm.Change{VM: v, Drop: vm.UntilStop}))
	}
	back(dev)
	_, err := w.store.Create(t.Context(), gone, func(_, _ []netip.Addr) (vm.Lease, error) { return gone.Lease, nil }, func(vm.VM) []vm.Record { return nil }, op.Operation{ID: op.NewID(), Kind: lifecycle.KindCreate, Subject: string(gone.ID), State: op.Done, Created: time.Now(), Ended: time.Now()})
	w.must(err)
	w.boot()
	if v := w.await("dev", vm.Running); *v.Process != *now.Process {
		t.Errorf("it runs as %+v, was %+v", v.Process, now.Process)
	}
	w.finds(true)
	if all := w.m.Trash(alice); len(all) != 1 || all[0].ID != gone.ID {
		t.Errorf("the trash holds %v", all)
	}
	if _, err := w.m.Find(t.Context(), alice, "gone"); code(err) != fault.NotFound {
		t.Errorf("it is still known: %v", err)
	}
}

// TestWhatCannotBeTakenBack is a VM whose hypervisor lives and refuses the new daemon: it is tried again, and the log tells
// once.
func TestWhatCannotBeTakenBack(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.m.Close()
	w.host.FailOn(hosttest.Effect{Label: "attach hypervisor", Nth: 1})
	w.boot()
	if v := w.find("dev"); v.State != vm.Running {
		t.Errorf("it is %s", v.State)
	}
	if _, _, err := w.m.Ping(t.Context(), alice, "dev"); code(err) != fault.Unavailable {
		t.Errorf("got %v", err)
	}
	w.finds(true, "adrift dev")
	w.finds(true)
	_, _, err := w.m.Ping(t.Context(), alice, "dev")
	w.must(err)
}

// TestASettlingThatFailed is a guest whose end could not be dealt with: nothing else than the comparison ever would, and
// it comes to the same end.
func TestASettlingThatFailed(t *testing.T) {
	for _, c := range []struct {
		name   string
		end    func(*hosttest.Host, vm.ID)
		state  vm.State
		reason string
	}{
		{"killed", (*hosttest.Host).Crash, vm.Crashed, "the hypervisor ended without a farewell from the guest; the guest's last line: last words on the console"},
		{"powered off inside", (*hosttest.Host).Poweroff, vm.Stopped, "powered off from inside"},
		{"rebooted inside", (*hosttest.Host).Reboot, vm.Running, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.create("dev"))
			w.host.FailOn(hosttest.Effect{Label: "remove tap", Nth: 1})
			if err := w.ends(lifecycle.KindEnded, c.end); err == nil {
				t.Fatal("it did not fail")
			}
			w.must(w.m.Idle(t.Context()))
			if v := w.find("dev"); v.State != vm.Running {
				t.Fatalf("it is %s", v.State)
			}
			w.finds(true, "ended dev")
			w.must(w.m.Idle(t.Context()))
			if v := w.await("dev", c.state); v.Reason != c.reason {
				t.Errorf("reason %q, want %q", v.Reason, c.reason)
			}
			ended := 0
			for _, o := range w.m.Tracker.List() {
				if o.Kind == lifecycle.KindEnded {
					ended++
				}
			}
			if ended != 2 {
				t.Errorf("%d operations dealt with one end, want the one that failed and another", ended)
			}
			w.finds(true)
		})
	}
}

// TestWhatAnotherInstanceMadeIsNotTaken adopts a VM whose description names another instance's devices, as one does whose
// directory was copied: those are not this one's to make or to remove.
func TestWhatAnotherInstanceMadeIsNotTaken(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	ours := w.find("dev").Lease
	v := w.forget("dev")
	v.Lease.TAP, v.Lease.Bridge = "btcdef-01234567", "banger-cdef"
	w.must(w.host.Write(v))
	w.must(w.end(w.m.Adopt(t.Context(), alice, "dev", "")))
	if v := w.find("dev"); v.Lease != ours {
		t.Errorf("adopted with %+v, want %+v", v.Lease, ours)
	}
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	w.holds(w.runningText("dev")...)
}

// TestALostDescription is written again; a lost directory is told of, and nothing is done.
func TestALostDescription(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	id := w.find("dev").ID
	w.host.Lose(id, "vm.json")
	w.finds(false, "undescribed dev")
	w.finds(true, "undescribed dev")
	w.finds(true)
	w.holds(w.runningText("dev")...)
	w.host.LoseDirectory(id)
	w.finds(true, "bodiless dev")
	w.finds(true, "bodiless dev")
}

// TestAVerbIsNotDisturbed compares while a create goes on.
func TestAVerbIsNotDisturbed(t *testing.T) {
	w := newWorld(t)
	w.host.Behave(hosttest.Silent)
	o, err := w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev"})
	w.must(err)
	deadline := time.After(10 * time.Second)
	for len(w.host.Effects()) < 8 {
		select {
		case <-deadline:
			t.Fatalf("it comes to %q", w.host.Effects())
		case <-time.After(time.Millisecond):
			w.finds(true)
		}
	}
	w.must(w.m.Tracker.Cancel(o.ID))
	if err := w.end(o, nil); code(err) != fault.Canceled {
		t.Errorf("got %v", err)
	}
	w.holds()
}
