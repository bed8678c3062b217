package lifecycle_test

import (
	"slices"
	"strings"
	"testing"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/vm"
)

// checkpointed is a world in which dev runs and has the checkpoint cp.
func checkpointed(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.end(w.m.Checkpoint(t.Context(), alice, "dev", "cp")))
	w.host.FailAt(0)
	return w
}

func (w *world) rollback(name string) error {
	return w.end(w.m.Rollback(w.t.Context(), alice, name, "cp"))
}

func TestAVMIsTakenBack(t *testing.T) {
	w := checkpointed(t)
	before := w.find("dev")
	w.must(w.set("work_disk", "64G", "name", "other"))
	w.must(w.rollback("other"))
	after := w.find("other")
	if after.ID != before.ID || after.State != vm.Running || after.Lease.Address != before.Lease.Address || after.Access.MachineID != before.Access.MachineID {
		t.Errorf("it is another: %+v", after)
	}
	if after.Spec != before.Spec {
		t.Errorf("it has %+v, and had %+v", after.Spec, before.Spec)
	}
	done := w.host.Effects()
	if w.did("start hypervisor") || !w.did("restore hypervisor") || slices.Index(done, "adopt identity") > slices.Index(done, "admit tap") {
		t.Errorf("it went %v", done)
	}
	if flushed := slices.Index(done, "hold guest"); flushed < 0 || flushed > slices.Index(done, "exchange jails") {
		t.Errorf("what it had not written is lost: %v", done)
	}
	trash := w.m.Trash(alice)
	if len(trash) != 1 || trash[0].Name != "other-before-cp" || trash[0].Spec.WorkDisk != 64*vm.GiB {
		t.Fatalf("in the trash is %+v", trash)
	}
	w.must(w.end(w.m.Restore(t.Context(), alice, "other-before-cp", "")))
	if v := w.find("other-before-cp"); v.Access.MachineID == after.Access.MachineID || v.Access.HostKey == after.Access.HostKey {
		t.Error("two VMs share an identity")
	}
	w.must(w.end(w.m.Start(t.Context(), alice, "other-before-cp")))
	// As often as one likes, from any state.
	w.must(w.end(w.m.Stop(t.Context(), alice, "other", 0)))
	w.must(w.rollback("other"))
	w.fill(0) // which pauses it
	w.host.SetRoom(func(r *hosttest.Room) { r.Space = admission.Space{Free: vm.TiB, Size: vm.TiB} })
	w.must(w.rollback("other"))
	if v := w.find("other"); v.State != vm.Running {
		t.Errorf("it is %s", v.State)
	}
}

func TestWhatAVMCannotBeTakenBackTo(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(*world)
		code    fault.Code
		want    string
	}{
		"none":           {func(w *world) { w.must(w.m.DeleteCheckpoint(w.t.Context(), alice, "dev", "cp")) }, fault.NotFound, `find checkpoint "cp": VM dev has no checkpoint of this name`},
		"altered":        {func(w *world) { w.host.Alter() }, fault.Corrupt, "its file state is not what was sealed"},
		"other firmware": {func(w *world) { w.host.Upgrade("Fake 2.0") }, fault.Incompatible, `Firecracker was "Fake 1.0" then and is "Fake 2.0" now`},
	} {
		t.Run(name, func(t *testing.T) {
			w := checkpointed(t)
			c.arrange(w)
			w.host.FailAt(0)
			if err := w.rollback("dev"); code(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s: %v", code(err), err)
			}
			if v := w.find("dev"); v.State != vm.Running || len(w.host.Effects()) > 0 {
				t.Errorf("it is %s, after %v", v.State, w.host.Effects())
			}
			all, err := w.m.Checkpoints(t.Context(), alice, "dev")
			w.must(err)
			if c.code == fault.NotFound {
				if len(all) > 0 {
					t.Errorf("listed are %v", all)
				}
			} else if len(all) != 1 || !fault.Is(all[0].Err, c.code) {
				t.Errorf("listed are %v", all)
			}
		})
	}
}

// A host that cannot take what the VM was keeps the VM as it is.
func TestATakeBackThatIsRefused(t *testing.T) {
	w := checkpointed(t)
	w.must(w.set("work_disk", "64G", "memory", "256M"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	before := w.find("dev")
	w.host.SetRoom(func(r *hosttest.Room) { r.Memory = vm.GiB / 2 })
	w.host.FailAt(0)
	if err := w.rollback("dev"); code(err) != fault.Exhausted {
		t.Errorf("got %v", err)
	}
	if v := w.find("dev"); v.State != vm.Running || v.Spec != before.Spec || w.did("hold guest") || w.did("kill hypervisor") {
		t.Errorf("it is %s, with %+v, after %v", v.State, v.Spec, w.host.Effects())
	}
	w.host.SetRoom(func(r *hosttest.Room) { r.Memory = vm.TiB })
	// Nor does what fails before its disks are others change what is asked of it.
	w.host.FailOn(hosttest.Effect{Label: "exchange jails", Nth: 1})
	if err := w.rollback("dev"); err == nil {
		t.Error("it went well")
	}
	if v := w.find("dev"); v.State != vm.Stopped || v.Spec != before.Spec {
		t.Errorf("it is %s, with %+v", v.State, v.Spec)
	}
}

// Where the memory cannot be gone on from, the VM has the checkpoint's disks, and the trash those before.
func TestATakeBackThatFailsAtItsEnd(t *testing.T) {
	w := checkpointed(t)
	w.host.FailOn(hosttest.Effect{Label: "adopt identity", Nth: 1})
	err := w.rollback("dev")
	if hint := fault.From(err).Hint; err == nil || hint != "its disks are those of the checkpoint: `banger vm start dev` boots from them; those before are in the trash as dev-before-cp" {
		t.Errorf("got %v, hint %q", err, hint)
	}
	v := w.find("dev")
	if v.State != vm.Stopped || !strings.HasPrefix(v.Reason, "the last start failed: ") || len(w.m.Trash(alice)) != 1 {
		t.Errorf("it is %s (%s), in the trash is %v", v.State, v.Reason, w.m.Trash(alice))
	}
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
}

func TestACheckpointIsTakenOnce(t *testing.T) {
	w := checkpointed(t)
	_, err := w.m.Checkpoint(t.Context(), alice, "dev", "cp")
	if code(err) != fault.AlreadyExists || !strings.Contains(err.Error(), `make checkpoint of dev "cp": there is one already`) {
		t.Errorf("got %v", err)
	}
	if _, err := w.m.Checkpoint(t.Context(), alice, "dev", "../cp"); code(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
	if _, err := w.m.Checkpoint(t.Context(), bob, "dev", "cp2"); code(err) != fault.NotFound {
		t.Errorf("another's: %v", err)
	}
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	if _, err := w.m.Checkpoint(t.Context(), alice, "dev", "cp2"); code(err) != fault.WrongState {
		t.Errorf("stopped: %v", err)
	}
}

// A snapshot that cannot be written leaves the VM running, and nothing of itself.
func TestACheckpointThatFails(t *testing.T) {
	for _, label := range []string{"hold guest", "pause hypervisor", "snapshot memory", "clone work.ext4", "seal snapshot"} {
		t.Run(label, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.create("dev"))
			w.host.FailAt(0)
			w.host.FailOn(hosttest.Effect{Label: label, Nth: 1})
			if err := w.end(w.m.Checkpoint(t.Context(), alice, "dev", "cp")); err == nil {
				t.Error("it went well")
			}
			w.must(w.m.Idle(t.Context()))
			w.holds(w.runningText("dev")...)
			if v := w.find("dev"); v.State != vm.Running {
				t.Errorf("it is %s", v.State)
			}
		})
	}
}
