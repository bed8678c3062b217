package daemon

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/op"
	"banger/internal/store"
)

// TestOperationsOfThisProcessAndItsPredecessors are one list.
func TestOperationsOfThisProcessAndItsPredecessors(t *testing.T) {
	s, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &Daemon{store: s, tracker: op.NewTracker()}
	at := func(id op.ID, seconds int64) op.Operation {
		return op.Operation{ID: id, State: op.Underway, Created: time.Unix(seconds, 0)}
	}
	for _, o := range []op.Operation{at("op-1", 1).Finished(nil), at("op-2", 2), at("op-4", 4).Finished(nil)} {
		if err := s.SaveOperation(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	d.tracker.Begin(at("op-2", 2), func() {}).Finish(nil) // stored as running, ended by now
	d.tracker.Begin(at("op-3", 3), func() {})
	all, err := operations{d}.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range all {
		got = append(got, string(o.ID)+" "+string(o.State))
	}
	if diff := cmp.Diff([]string{"op-4 done", "op-3 running", "op-2 done", "op-1 done"}, got); diff != "" {
		t.Error(diff)
	}
	for id, want := range map[op.ID]op.State{"op-1": op.Done, "op-2": op.Done, "op-3": op.Underway} {
		if o, err := (operations{d}).Get(t.Context(), id); err != nil || o.State != want {
			t.Errorf("%s: %+v, %v", id, o, err)
		}
	}
}
