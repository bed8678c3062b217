package lifecycle_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// createOpen creates a VM with doors.
func (w *world) createOpen(name, ports string) error {
	w.t.Helper()
	return w.end(w.m.Create(w.t.Context(), alice, lifecycle.CreateRequest{Name: name, Settings: settings("ports", ports)}))
}

func (w *world) ports(name string) string { return w.find(name).Settings["ports"] }

// TestDoorsFollowTheVM opens and closes them with it, and at once where they change.
func TestDoorsFollowTheVM(t *testing.T) {
	w := newWorld(t)
	w.must(w.createOpen("dev", "8080:80,:81"))
	w.holds(w.runningText("dev")...)
	chosen := w.ports("dev")
	if !strings.HasPrefix(chosen, "8080:80,200") || !strings.HasSuffix(chosen, ":81") {
		t.Errorf("it has %s", chosen)
	}
	w.must(w.set("ports", "+[::1]:9090:90"))
	w.must(w.set("ports", "-8080"))
	w.holds(w.runningText("dev")...)
	if v := w.find("dev"); len(v.Pending) > 0 {
		t.Errorf("%v wait", v.Pending)
	}
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.holds(w.stoppedText("dev")...)
	w.must(w.set("ports", "+8080:80"))
	w.holds(w.stoppedText("dev")...)
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	w.holds(w.runningText("dev")...)
	if now := w.ports("dev"); now != "8080:80,[::1]:9090:90,"+strings.TrimPrefix(chosen, "8080:80,") {
		t.Errorf("it has %s, and had %s", now, chosen)
	}
	w.must(w.set("ports", ""))
	w.holds(w.runningText("dev")...)
}

// TestAPortThatIsTaken is refused before anything is made, and keeps a VM that runs as it is.
func TestAPortThatIsTaken(t *testing.T) {
	w := newWorld(t)
	taken := netip.MustParseAddrPort("127.0.0.1:8080")
	w.host.Take(taken)
	refused := func(err error, what string) {
		t.Helper()
		if !fault.Is(err, fault.InUse) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %s", err, what)
		}
	}
	refused(w.createOpen("dev", "8080:80"), "process 7 (httpd) listens there")
	w.holds()
	w.must(w.createOpen("dev", "9090:90"))
	refused(w.set("ports", "+8080:80"), "process 7 (httpd) listens there")
	w.holds(w.runningText("dev")...)
	if w.ports("dev") != "9090:90" {
		t.Error(w.ports("dev"))
	}

	refused(w.createOpen("other", "0.0.0.0:9090:90"), "VM dev has that port, as 9090:90")
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	refused(w.createOpen("other", "9090:91"), "VM dev has that port, as 9090:90")
	w.must(w.createOpen("other", "9091:90"))
	refused(w.set("ports", "+9091:90"), "VM other has that port, as 9091:90")
	w.must(w.set("ports", "8080:80"))
	refused(w.end(w.m.Start(t.Context(), alice, "dev")), "process 7 (httpd) listens there")
	w.host.Leave(taken)
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
}

// TestADoorThatCannotBeOpenedAgain is not the VM's end, and is tried again.
func TestADoorThatCannotBeOpenedAgain(t *testing.T) {
	w := newWorld(t)
	w.must(w.createOpen("dev", "8080:80,9090:90"))
	w.m.Close()
	w.host.Revive()
	taken := netip.MustParseAddrPort("127.0.0.1:8080")
	w.host.Take(taken)
	w.boot()
	if text := w.host.Text(); !strings.Contains(text, "doors dev: 9090:90\n") || w.find("dev").State != vm.Running {
		t.Errorf("the host holds\n%s", text)
	}
	w.must(w.set("ports", "+9091:91"))
	w.must(w.set("ports", "-9091"))
	w.host.Leave(taken)
	w.looks(true)
	w.holds(w.runningText("dev")...)
}

// TestDoorsOfACopy are none: two VMs cannot have the same. One that is taken back keeps its own.
func TestDoorsOfACopy(t *testing.T) {
	w := newWorld(t)
	w.must(w.createOpen("dev", "8080:80"))
	w.must(w.end(w.m.Checkpoint(t.Context(), alice, "dev", "before")))
	w.must(w.set("ports", "9090:90"))
	w.must(w.end(w.m.Fork(t.Context(), alice, "dev", lifecycle.ForkRequest{Name: "twin"})))
	if w.ports("twin") != "" {
		t.Error(w.ports("twin"))
	}
	w.must(w.end(w.m.Rollback(t.Context(), alice, "dev", "before")))
	if w.ports("dev") != "9090:90" {
		t.Error(w.ports("dev"))
	}
	w.must(w.end(w.m.Restore(t.Context(), alice, "dev-before-before", "")))
	if got := w.ports("dev-before-before"); got != "" {
		t.Error(got)
	}
}

// TestRootsPorts are not for everybody.
func TestRootsPorts(t *testing.T) {
	w := newWorld(t)
	if err := w.createOpen("dev", "80:80"); !fault.Is(err, fault.Forbidden) || !strings.Contains(fault.From(err).Hint, "8080:80") {
		t.Error(err)
	}
	w.must(w.end(w.m.Create(t.Context(), root, lifecycle.CreateRequest{Name: "dev", Settings: settings("ports", "80:80")})))
}

// TestDoorsLetInToAGuestThatServes holds that nothing comes to one that is not its VM's yet, or stands still.
func TestDoorsLetInToAGuestThatServes(t *testing.T) {
	w := newWorld(t)
	early := &enters{w: w}
	w.more = []feature.Feature{early}
	w.boot()
	w.must(w.create("dev"))
	id := w.find("dev").ID
	enter := func(ctx context.Context) error {
		c, err := w.m.Enter(ctx, id, 80)
		if c != nil {
			_ = c.Close()
		}
		return err
	}
	if !fault.Is(early.err, fault.WrongState) {
		t.Errorf("as it comes up: %v", early.err)
	}
	if err := enter(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("where nothing listens: %v", err)
	}
	w.restart()
	if err := enter(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("after a restart of the daemon: %v", err)
	}
	w.fill(0)
	w.await("dev", vm.Paused)
	if err := enter(t.Context()); !fault.Is(err, fault.WrongState) {
		t.Errorf("where it is paused: %v", err)
	}
	w.fill(vm.TiB)
	w.await("dev", vm.Running)
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	if err := enter(t.Context()); !fault.Is(err, fault.WrongState) {
		t.Errorf("where it is stopped: %v", err)
	}
}

// enters tries to enter a VM before it runs.
type enters struct {
	w   *world
	err error
}

func (*enters) Name() string                         { return "enters" }
func (*enters) Contribute(vm.VM, *feature.Blueprint) {}
func (e *enters) Up(ctx context.Context, v vm.VM, _ feature.Report) error {
	_, e.err = e.w.m.Enter(ctx, v.ID, 80)
	return nil
}
