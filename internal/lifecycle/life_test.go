package lifecycle_test

import (
	"strings"
	"sync"
	"testing"

	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

func TestALifeLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.holds(w.runningText("dev")...)

	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.holds(w.stoppedText("dev")...)

	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	w.holds(w.runningText("dev")...)

	w.must(w.end(w.m.Kill(t.Context(), alice, "dev")))
	w.holds(w.stoppedText("dev")...)

	w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Now: true})))
	w.holds()
	if records, err := w.store.Records(t.Context(), ""); err != nil || len(records) > 0 {
		t.Errorf("records left: %v, %v", records, err)
	}
}

func TestAtMostThreeCommitsBeforeTheGuestStarts(t *testing.T) {
	w := newWorld(t)
	w.host.FailAt(0)
	w.must(w.create("dev"))
	commits := 0
	for _, label := range w.host.Effects() {
		if label == "start hypervisor" {
			break
		}
		if strings.HasPrefix(label, "commit") {
			commits++
		}
	}
	if commits < 1 || commits > 3 {
		t.Errorf("%d durable commits before the guest starts, want 1 to 3", commits)
	}
}

func TestVMsOutliveTheDaemon(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	before := w.find("dev")
	w.restart()
	w.holds(w.runningText("dev")...)
	after := w.find("dev")
	if after.State != vm.Running || *after.Process != *before.Process {
		t.Errorf("after the restart: %+v", after)
	}
	if _, _, err := w.m.Ping(t.Context(), alice, "dev"); err != nil {
		t.Error(err)
	}
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.holds(w.stoppedText("dev")...)
}

func TestEndings(t *testing.T) {
	for _, c := range []struct {
		name   string
		end    func(*hosttest.Host, vm.ID)
		state  vm.State
		reason string
	}{
		{"powered off inside", (*hosttest.Host).Poweroff, vm.Stopped, "powered off from inside"},
		{"kernel panic", (*hosttest.Host).Panic, vm.Crashed, "the guest's kernel panicked; the guest's last line: last words on the console"},
		{"hypervisor killed", (*hosttest.Host).Crash, vm.Crashed, "the hypervisor ended without a farewell from the guest; the guest's last line: last words on the console"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.create("dev"))
			c.end(w.host, w.find("dev").ID)
			v := w.await("dev", c.state)
			if v.Reason != c.reason {
				t.Errorf("reason %q, want %q", v.Reason, c.reason)
			}
			w.holds(w.stoppedText("dev")...)
			w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
			w.holds(w.runningText("dev")...)
		})
	}
}

func TestARebootStartsAgain(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	before := w.find("dev")
	w.host.Reboot(before.ID)
	for {
		v := w.await("dev", vm.Running)
		if v.Process.PID != before.Process.PID {
			break
		}
	}
	w.holds(w.runningText("dev")...)
}

func TestEndedWhileNoDaemonWatched(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	id := w.find("dev").ID
	w.m.Close()
	w.host.Crash(id)
	w.boot()
	if v := w.await("dev", vm.Crashed); v.Reason != "its hypervisor ended while no daemon was watching; the guest's last line: last words on the console" {
		t.Errorf("reason %q", v.Reason)
	}
	w.holds(w.stoppedText("dev")...)
}

func TestGuestsThatDoNotBoot(t *testing.T) {
	for _, c := range []struct {
		guest hosttest.Behaviour
		code  fault.Code
		want  string
	}{
		{hosttest.Silent, fault.Timeout, `create VM "dev": the guest did not say hello within 2s`},
		{hosttest.Dies, fault.GuestFailed, `create VM "dev": the guest ended before it was ready`},
		{hosttest.FailsEarly, fault.GuestFailed, `create VM "dev": the guest's boot failed at disks: no such disk`},
	} {
		t.Run(string(c.guest), func(t *testing.T) {
			w := newWorld(t)
			w.host.Guest = c.guest
			err := w.create("dev")
			if err == nil || err.Error() != c.want || code(err) != c.code {
				t.Errorf("got %v (%s), want %s", err, code(err), c.want)
			}
			f := fault.From(err)
			if f.Detail == "" || len(f.Logs) == 0 {
				t.Errorf("the error shows no console and no log: %+v", f)
			}
			w.holds()
			w.host.Guest = hosttest.Healthy
			w.must(w.create("dev"))
		})
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.create("off"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "off", 0)))
	ctx := t.Context()
	try := func(req lifecycle.CreateRequest) error { return w.end(w.m.Create(ctx, alice, req)) }
	spec := func(change func(*vm.Spec)) lifecycle.CreateRequest {
		s := vm.Spec{VCPU: 1, Memory: vm.GiB}
		change(&s)
		return lifecycle.CreateRequest{Name: "new", Spec: s}
	}
	for _, c := range []struct {
		name string
		err  error
		code fault.Code
		want string
		hint string
	}{
		{"bad name", try(lifecycle.CreateRequest{Name: "Not Good"}), fault.Invalid, `name VM "Not Good": it is not a valid host name`, "lower-case"},
		{"name taken", w.create("dev"), fault.AlreadyExists, `create VM "dev": `, ""},
		{"unknown image", try(lifecycle.CreateRequest{Name: "new", Image: "nope:1"}), fault.NotFound, `find image "nope:1": no image has this name or id`, "banger image pull nope:1"},
		{"foreign image", try(lifecycle.CreateRequest{Name: "new", Image: "debian:arm"}), fault.Incompatible, `create VM "new": image debian:arm is for arm64, this host is amd64`, "amd64"},
		{"no memory", try(spec(func(s *vm.Spec) { s.Memory = 1 })), fault.Invalid, `size VM's "memory": 1 B is out of range`, "64 MiB"},
		{"absurd vcpu", try(spec(func(s *vm.Spec) { s.VCPU = 4096 })), fault.Invalid, `size VM's "vcpu": 4096 is out of range`, "1 to 32"},
		{"negative vcpu", try(spec(func(s *vm.Spec) { s.VCPU = -1 })), fault.Invalid, `size VM's "vcpu": -1 is out of range`, "1 to 32"},
		{"small root", try(spec(func(s *vm.Spec) { s.RootDisk = vm.MiB })), fault.Invalid, `size VM's "root-disk": 1 MiB is smaller than its image's root file system, 1 GiB`, "at least 1 GiB"},
		{"small work disk", try(spec(func(s *vm.Spec) { s.WorkDisk = vm.MiB })), fault.Invalid, `size VM's "work-disk": 1 MiB is smaller than its image's work seed, 64 MiB`, "at least 64 MiB"},
		{"not a key", try(lifecycle.CreateRequest{Name: "new", AuthorizedKeys: []string{"hello"}}), fault.Invalid, `read public key "hello": it is not a public key`, "id_ed25519.pub"},
		{"start running", w.end(w.m.Start(ctx, alice, "dev")), fault.WrongState, `start VM "dev": it is running already`, "vm ssh dev"},
		{"stop stopped", w.end(w.m.Stop(ctx, alice, "off", 0)), fault.WrongState, `stop VM "off": it is stopped already`, "vm start off"},
		{"kill stopped", w.end(w.m.Kill(ctx, alice, "off")), fault.WrongState, `kill VM "off": it is stopped already`, "vm start off"},
		{"delete running", w.end(w.m.Delete(ctx, alice, "dev", lifecycle.DeleteRequest{Now: true})), fault.WrongState, `delete VM "dev": it is running`, "--force"},
		{"another's VM", w.end(w.m.Delete(ctx, bob, "dev", lifecycle.DeleteRequest{Force: true, Now: true})), fault.NotFound, `find VM "dev": no VM has this name or id`, "vm list"},
		{"ping stopped", second(w.m.Ping(ctx, alice, "off")), fault.WrongState, `reach VM "off": it is stopped`, "vm start off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.err == nil || code(c.err) != c.code || !strings.HasPrefix(c.err.Error(), c.want) || !strings.Contains(fault.From(c.err).Hint, c.hint) {
				t.Errorf("got %v (%s, hint %q)\nwant %s (%s, hint with %q)", c.err, code(c.err), fault.From(c.err).Hint, c.want, c.code, c.hint)
			}
		})
	}
	w.holds(append(append([]string{w.runningText("dev")[0]}, w.runningText("dev")[1], w.stoppedText("off")[0]), w.runningText("dev")[2:]...)...)
}

func second[A, B any](_ A, _ B, err error) error { return err }

func TestPreflightComesBeforeAnything(t *testing.T) {
	w := newWorld(t)
	w.preflight.Store(fault.New(fault.Requirement, "KVM is not usable").WithHint("run `banger doctor`"))
	if err := w.create("dev"); code(err) != fault.Requirement || err.Error() != `create VM "dev": KVM is not usable` {
		t.Errorf("got %v", err)
	}
	w.holds()
}

func TestTwoCreatesOfOneName(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = w.create("dev") })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch code(err) {
		case "":
			won++
		case fault.AlreadyExists:
		default:
			t.Errorf("unexpected %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d creates of one name won, want 1", won)
	}
	w.holds(w.runningText("dev")...)
}

func TestAMissingWorkDiskIsNeverReplaced(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.host.Lose(w.find("dev").ID, vm.FileWorkDisk)
	err := w.end(w.m.Start(t.Context(), alice, "dev"))
	if code(err) != fault.Corrupt || !strings.Contains(err.Error(), "its work-disk is missing") {
		t.Errorf("got %v", err)
	}
	w.holds("dir dev: initrd root.ext4 vm.json vmlinux")
}

// TestALostRootOverlayIsSaid holds that a VM does not come up over what the kernel has given up, and that the device is
// not left behind.
func TestALostRootOverlayIsSaid(t *testing.T) {
	w := newWorld(t)
	w.root = vm.RootSnapshot
	w.boot()
	w.must(w.create("dev"))
	w.host.LoseOverlay(w.find("dev").ID)
	for range 2 { // it is told once
		w.looks(true)
	}
	if v := w.find("dev"); v.State != vm.Running || v.Reason != "its root overlay is lost" {
		t.Errorf("while it runs it is %s (%s)", v.State, v.Reason)
	}
	told := 0
	for _, e := range w.events() {
		if e.Kind == event.VMAils && e.Reason == "its root overlay is lost" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d events tell of it", told)
	}
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	err := w.end(w.m.Start(t.Context(), alice, "dev"))
	if code(err) != fault.Corrupt || err.Error() != `start VM "dev": its root overlay is lost` || fault.From(err).Hint == "" {
		t.Errorf("got %v", err)
	}
	w.holds(w.stoppedText("dev")...)
	if v := w.find("dev"); !strings.Contains(v.Reason, "its root overlay is lost") {
		t.Errorf("it says %q", v.Reason)
	}
}

// TestADeviceNeedsItsKernel holds that a VM whose root overlay the host can no longer make is refused before anything is
// committed, and that one is not made another way than it is configured.
func TestADeviceNeedsItsKernel(t *testing.T) {
	w := newWorld(t)
	w.root = vm.RootSnapshot
	w.boot()
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.host.SetRoom(func(r *hosttest.Room) { r.NoMapper = true })
	if err := w.end(w.m.Start(t.Context(), alice, "dev")); code(err) != fault.Requirement || !strings.Contains(err.Error(), "dev") {
		t.Errorf("start: %v", err)
	}
	if err := w.create("other"); code(err) != fault.Requirement {
		t.Errorf("create: %v", err)
	}
	w.holds(w.stoppedText("dev")...)
}

func TestCancelUndoes(t *testing.T) {
	w := newWorld(t)
	w.host.Guest = hosttest.Silent
	o, err := w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev"})
	w.must(err)
	w.must(w.m.Tracker.Cancel(o.ID))
	if err := w.end(o, nil); code(err) != fault.Canceled {
		t.Errorf("got %v", err)
	}
	w.holds()
}
