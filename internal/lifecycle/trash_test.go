package lifecycle_test

import (
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

func (w *world) trash(name string) {
	w.t.Helper()
	w.must(w.end(w.m.Delete(w.t.Context(), alice, name, lifecycle.DeleteRequest{Force: true})))
}

// says checks an error as a user reads it.
func (w *world) says(err error, want fault.Code, text, hint string) {
	w.t.Helper()
	if err == nil || code(err) != want || !strings.HasPrefix(err.Error(), text) || !strings.Contains(fault.From(err).Hint, hint) {
		w.t.Errorf("got %v (%s, hint %q)\nwant %s (%s, hint with %q)", err, code(err), fault.From(err).Hint, text, want, hint)
	}
}

func TestTrash(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	before := w.find("dev")
	w.trash("dev")
	w.holds(w.trashedText("dev")...)

	// Its name is free, and its address rests; only its owner sees it.
	w.must(w.create("dev"))
	if got := w.find("dev").Lease.Address; got == before.Lease.Address {
		t.Errorf("the address %s was given at once", got)
	}
	if n := len(w.m.Trash(bob)); n != 0 {
		t.Errorf("another user sees %d VMs in the trash", n)
	}
	for _, c := range []struct {
		err        error
		code       fault.Code
		text, hint string
	}{
		{w.end(w.m.Restore(t.Context(), alice, "dev", "")), fault.AlreadyExists, `restore VM "dev": the name is taken`, "--name"},
		{w.end(w.m.Restore(t.Context(), bob, "dev", "")), fault.NotFound, `find VM in the trash "dev": nothing in the trash has this name or id`, "trash list"},
		{w.end(w.m.Restore(t.Context(), alice, "dev", "Dev!")), fault.Invalid, `name VM "Dev!"`, ""},
		{w.end(w.m.Destroy(bob, "dev")), fault.NotFound, `find VM in the trash "dev": nothing in the trash has this name or id`, "trash list"},
		{w.m.DeleteImage(t.Context(), alice, "debian:12"), fault.InUse, `delete image "debian:12": VMs were made from it: dev, dev (in the trash)`, "trash"},
	} {
		w.says(c.err, c.code, c.text, c.hint)
	}

	w.must(w.end(w.m.Restore(t.Context(), alice, string(before.ID), "dev2")))
	back := w.find("dev2")
	if back.ID != before.ID || back.Access.HostKey != before.Access.HostKey || back.State != vm.Stopped || !back.Deleted.IsZero() {
		t.Errorf("restored: %+v", back)
	}
	if back.Lease != before.Lease {
		t.Errorf("it had %+v, and has %+v", before.Lease, back.Lease)
	}
	w.must(w.end(w.m.Start(t.Context(), alice, "dev2")))

	w.trash("dev")
	w.must(w.create("dev"))
	w.trash("dev")
	w.says(w.end(w.m.Restore(t.Context(), alice, "dev", "")), fault.Ambiguous, `find VM in the trash "dev": the trash holds 2 VMs of this name`, "trash list")
}

func TestTrashIsSwept(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("old"))
	w.trash("old")
	w.must(w.create("new"))
	w.trash("new")
	more, err := w.m.EmptyOldest(t.Context())
	w.must(err)
	if left := w.m.Trash(alice); !more || len(left) != 1 || left[0].Name != "new" {
		t.Errorf("the oldest did not go: %v %v", more, left)
	}
	w.m.TrashGrace = 0
	w.m.SweepTrash()
	w.must(w.m.Idle(t.Context()))
	w.holds()
	if more, err := w.m.EmptyOldest(t.Context()); more || err != nil {
		t.Errorf("an empty trash was emptied: %v %v", more, err)
	}
}
