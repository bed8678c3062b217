package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/store"
	"banger/internal/vm"
)

// told returns what was told after an id, a line each, and the id to go on from.
func told(t *testing.T, s *store.Store, after int64) (lines []string, next int64) {
	t.Helper()
	for limit := 7; ; limit *= 2 {
		page, err := s.Events(t.Context(), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if e.Time.IsZero() {
				t.Errorf("%+v has no time", e)
			}
			line := fmt.Sprintf("%d %s %s %s", e.ID, e.Kind, e.Name, e.Reason)
			if e.Operation != nil {
				line += e.Operation.Kind + " " + string(e.Operation.State)
			}
			lines = append(lines, line)
		}
		after = page.Next
		if !page.More {
			return lines, after
		}
	}
}

func is(t *testing.T, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func note(t *testing.T, s *store.Store, news ...event.Event) {
	t.Helper()
	if err := s.Note(t.Context(), news...); err != nil {
		t.Fatal(err)
	}
}

// TestEventsComeWithTheirChange goes through the commits of a life.
func TestEventsComeWithTheirChange(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	before := s.Commits()
	v := create(t, s, "a")
	v.State = vm.Running
	made := operation("vm.create").Finished(nil)
	commit(t, s, vm.Change{VM: v, Op: &made})
	commit(t, s, vm.Change{VM: v}) // its process, say: nothing that anybody is told
	v.State, v.Reason = vm.Crashed, "the guest's kernel panicked"
	commit(t, s, vm.Change{VM: v})
	started := operation("vm.start")
	v.State = vm.Starting
	commit(t, s, vm.Change{VM: v, Op: &started})
	started = started.Finished(nil)
	v.State, v.Reason = vm.Running, ""
	commit(t, s, vm.Change{VM: v, Op: &started})
	v.Name, v.Spec.Memory, v.Labels = "b", vm.GiB, map[string]string{"k": "v"}
	commit(t, s, vm.Change{VM: v})
	commit(t, s, vm.Change{VM: v, Remove: true})
	commit(t, s, vm.Change{VM: v, Remove: true})
	if err := s.SaveOperation(t.Context(), operation("image.pull").Finished(fault.New(fault.Timeout, "too slow")), event.OfImage(event.ImageAdded, image.Manifest{ID: "0123456789ab", Name: "debian:12"})); err != nil {
		t.Fatal(err)
	}
	note(t, s, event.OfDaemon(event.DaemonEnded, "stopped"))
	if n := s.Commits() - before; n != 11 {
		t.Errorf("%d commits for 11 changes", n)
	}
	lines, next := told(t, s, 0)
	is(t, lines,
		"1 operation.began  vm.create running",
		"2 vm.created a ",
		"3 vm.running a ",
		"4 operation.began  vm.create running",
		"5 operation.ended  vm.create done",
		"6 vm.crashed a the guest's kernel panicked",
		"7 operation.began  vm.start running",
		"8 vm.starting a ",
		"9 vm.running a ",
		"10 operation.ended  vm.start done",
		"11 vm.renamed b ",
		"12 vm.set b ",
		"13 vm.deleted b ",
		"14 image.added debian:12 ",
		"15 operation.began  image.pull running",
		"16 operation.ended  too slowimage.pull failed",
		"17 daemon.ended  stopped",
	)
	page, err := s.Events(t.Context(), 10, 2)
	if err != nil || page.Events[0].Was != "a" || !slices.Equal(page.Events[1].Changed, []string{"labels", "memory"}) || page.Events[1].Owner != 1000 {
		t.Errorf("renamed and set: %+v, %v", page, err)
	}
	// Neither the events nor their ids end with the process.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	note(t, s, event.OfDaemon(event.DaemonStarted, ""))
	lines, _ = told(t, s, next)
	is(t, lines, "18 daemon.started  ")
}

func TestWhatIsNotStoredIsNotTold(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := create(t, s, "a"), create(t, s, "b")
	_, next := told(t, s, 0)
	begun := operation("vm.start")
	theirs := hold(a)[1]
	theirs.VM = b.ID
	b.State = vm.Running
	if err := s.Commit(t.Context(), vm.Change{VM: b, Hold: []vm.Record{theirs}, Op: &begun}); !fault.Is(err, fault.InUse) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Create(t.Context(), machine("a"), pick, hold, operation("vm.create")); !fault.Is(err, fault.AlreadyExists) {
		t.Fatalf("got %v", err)
	}
	note(t, s, event.OfDaemon(event.DaemonEnded, ""))
	lines, _ := told(t, s, next)
	is(t, lines, fmt.Sprintf("%d daemon.ended  ", next+1))
}

func TestInterruptedOperationsAreToldOf(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.SaveOperation(t.Context(), operation("image.pull")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.FailInterrupted(t.Context(), func(string) string { return "pull image" }); err != nil {
			t.Fatal(err)
		}
	}
	lines, _ := told(t, s, 1)
	is(t, lines, "2 operation.ended  pull image: the daemon ended while it ranimage.pull failed")
}

func TestOldEventsAreForgottenAndMissed(t *testing.T) {
	s := open(t, t.TempDir())
	many := make([]event.Event, store.KeepEvents+5)
	for i := range many {
		many[i] = event.OfDaemon(event.DaemonStarted, "")
	}
	note(t, s, many...)
	lines, next := told(t, s, 0)
	if next != int64(len(many)) || len(lines) != store.KeepEvents+1 {
		t.Fatalf("%d lines, the last is %d", len(lines), next)
	}
	is(t, lines[:2], "5 gap  what happened before is no longer kept", "6 daemon.started  ")
	lines, _ = told(t, s, 4)
	is(t, lines[:2], "5 gap  what happened before is no longer kept", "6 daemon.started  ")
	lines, _ = told(t, s, 5)
	is(t, lines[:1], "6 daemon.started  ")
	lines, same := told(t, s, next)
	if len(lines) != 0 || same != next {
		t.Errorf("after the newest: %q, %d", lines, same)
	}
}

// TestAnIDOfALostDatabase is a client who comes back after the database was made anew.
func TestAnIDOfALostDatabase(t *testing.T) {
	s := open(t, t.TempDir())
	lines, next := told(t, s, 70)
	is(t, lines, "0 gap  what happened before is no longer kept")
	if next != 0 {
		t.Errorf("goes on from %d", next)
	}
	note(t, s, event.OfDaemon(event.DaemonStarted, ""))
	lines, next = told(t, s, 70)
	is(t, lines, "0 gap  what happened before is no longer kept", "1 daemon.started  ")
	lines, _ = told(t, s, next)
	is(t, lines)
}

func TestEventBefore(t *testing.T) {
	s := open(t, t.TempDir())
	at := func(since time.Time) int64 {
		id, err := s.EventBefore(t.Context(), since)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	begun := time.Now()
	if id := at(begun); id != 0 {
		t.Errorf("before the first: %d", id)
	}
	note(t, s, event.OfDaemon(event.DaemonStarted, ""))
	between := time.Now()
	note(t, s, event.OfDaemon(event.DaemonEnded, ""))
	for i, since := range []time.Time{begun, between, time.Now()} {
		if id := at(since); id != int64(i) {
			t.Errorf("%d: since then come the events after %d", i, id)
		}
	}
	if id, err := s.LastEvent(t.Context()); id != 2 || err != nil {
		t.Errorf("the last is %d, %v", id, err)
	}
}

// TestEveryCommitWakes holds that whoever waits misses nothing between a look and the wait.
func TestEveryCommitWakes(t *testing.T) {
	s := open(t, t.TempDir())
	const all = 200
	done := make(chan error)
	go func() {
		for after := int64(0); after < all; {
			changed := s.Changed()
			page, err := s.Events(t.Context(), after, 10)
			if err != nil {
				done <- err
				return
			}
			if after = page.Next; !page.More && after < all {
				<-changed
			}
		}
		done <- nil
	}()
	for range all {
		note(t, s, event.OfDaemon(event.DaemonStarted, ""))
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the reader sleeps")
	}
}
