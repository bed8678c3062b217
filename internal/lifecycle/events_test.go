package lifecycle_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/event"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

// events returns all that was told.
func (w *world) events() []event.Event {
	w.t.Helper()
	page, err := w.store.Events(w.t.Context(), 0, 10_000)
	w.must(err)
	return page.Events
}

// eventsTellAll holds that whoever knows nothing but the events knows each VM's state, and each operation's.
func (w *world) eventsTellAll() {
	w.t.Helper()
	w.must(w.m.Idle(w.t.Context()))
	states, operations := map[vm.ID]vm.State{}, map[op.ID]op.State{}
	for i, e := range w.events() {
		if e.ID != int64(i)+1 {
			w.t.Errorf("event %d has the id %d", i+1, e.ID)
		}
		switch e.Kind {
		case event.VMCreated, event.VMRestored:
			states[e.VM] = e.State
		case event.VMDeleted:
			delete(states, e.VM)
		case event.OperationBegan:
			if operations[e.Operation.ID] != "" {
				w.t.Errorf("%s began twice", e.Operation.Kind)
			}
			operations[e.Operation.ID] = op.Underway
		case event.OperationEnded:
			if was := operations[e.Operation.ID]; was == "" || was == e.Operation.State {
				w.t.Errorf("%s ended when it was %q", e.Operation.Kind, was)
			}
			operations[e.Operation.ID] = e.Operation.State
		default:
			if e.State != "" {
				if states[e.VM] == "" || states[e.VM] == e.State || string(e.Kind) != "vm."+string(e.State) {
					w.t.Errorf("%s, when it was %q", e.Kind, states[e.VM])
				}
				states[e.VM] = e.State
			}
		}
	}
	all, err := w.store.VMs(w.t.Context())
	w.must(err)
	want := map[vm.ID]vm.State{}
	for _, v := range all {
		want[v.ID] = v.State
	}
	if !maps.Equal(states, want) {
		w.t.Errorf("told were %v, stored are %v", states, want)
	}
	ops, err := w.store.Operations(w.t.Context(), 1000)
	w.must(err)
	stored := map[op.ID]op.State{}
	for _, o := range ops {
		stored[o.ID] = o.State
	}
	if d := cmp.Diff(stored, operations); d != "" {
		w.t.Errorf("operations (-stored +told):\n%s", d)
	}
}

func TestALifeIsTold(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	w.host.Poweroff(w.find("dev").ID)
	w.await("dev", vm.Stopped)
	w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{})))
	w.must(w.end(w.m.Restore(t.Context(), alice, "dev", "")))
	w.must(w.end(w.m.PullImage(alice, "debian:13")))
	w.must(w.m.DeleteImage(t.Context(), alice, "debian:13"))
	var got []string
	for _, e := range w.events() {
		if e.Operation != nil {
			e.Name = e.Operation.Kind + " " + string(e.Operation.State)
		}
		got = append(got, strings.TrimSpace(string(e.Kind)+" "+e.Name+" "+e.Reason))
	}
	want := []string{
		"operation.began vm.create running", "vm.created dev", "vm.running dev", "operation.ended vm.create done",
		"operation.began vm.stop running", "vm.stopping dev", "vm.stopped dev", "operation.ended vm.stop done",
		"operation.began vm.start running", "vm.starting dev", "vm.running dev", "operation.ended vm.start done",
		"vm.stopped dev powered off from inside",
		"operation.began vm.delete running", "vm.deleting dev", "vm.deleted dev", "operation.ended vm.delete done",
		"operation.began vm.restore running", "vm.restored dev", "vm.stopped dev", "operation.ended vm.restore done",
		"operation.began image.pull running", "image.added debian:13", "operation.ended image.pull done", "image.removed debian:13",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	w.eventsTellAll()
}

// TestWhatIsRefusedIsNotTold holds that only what is done makes news.
func TestWhatIsRefusedIsNotTold(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	before := len(w.events())
	if _, err := w.m.Start(t.Context(), alice, "dev"); err == nil {
		t.Error("a running VM was started")
	}
	if _, err := w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev"}); err == nil {
		t.Error("a name was taken twice")
	}
	if after := len(w.events()); after != before {
		t.Errorf("%v", w.events()[before:])
	}
}
