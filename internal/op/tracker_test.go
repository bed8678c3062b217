package op_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"banger/internal/fault"
	"banger/internal/op"
)

func begin(t *testing.T, tr *op.Tracker, cancel func()) *op.Job {
	t.Helper()
	return tr.Begin(op.Operation{ID: op.NewID(), Kind: "vm.create", State: op.Underway, Created: time.Now()}, cancel)
}

func TestFollowSeesTheEnd(t *testing.T) {
	tr := op.NewTracker()
	job := begin(t, tr, func() {})
	id := job.Snapshot().ID
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var last op.Operation
			if err := tr.Follow(t.Context(), id, func(o op.Operation) error { last = o; return nil }); err != nil {
				t.Error(err)
			}
			if last.State != op.Done || len(last.Stages) != 100 || !last.Stages[99].Done || last.Stages[99].Detail != "half" {
				t.Errorf("the last state followed is %+v", last)
			}
		})
	}
	for range 100 {
		s := job.Stage("disk")
		s.Detail("half")
		s.End(nil)
	}
	job.Finish(nil)
	wg.Wait()
}

func TestASnapshotIsNotChangedLater(t *testing.T) {
	job := begin(t, op.NewTracker(), func() {})
	s := job.Stage("disk")
	before := job.Snapshot()
	s.Detail("later")
	s.End(nil)
	if before.Stages[0].Detail != "" || before.Stages[0].Done {
		t.Errorf("a snapshot changed: %+v", before.Stages[0])
	}
}

func TestFinishKeepsTheFault(t *testing.T) {
	for _, c := range []struct {
		err  error
		want op.State
		code fault.Code
	}{
		{errors.New("boom"), op.Failed, fault.Internal},
		{fault.New(fault.Exhausted, "full"), op.Failed, fault.Exhausted},
		{fault.New(fault.Canceled, "called off"), op.Canceled, fault.Canceled},
	} {
		job := begin(t, op.NewTracker(), func() {})
		job.Finish(c.err)
		if o := job.Snapshot(); o.State != c.want || o.Error.Code != c.code || o.Ended.IsZero() {
			t.Errorf("finished with %v: %+v", c.err, o)
		}
	}
}

func TestAnErrorNamesTheStageThatFailedFirst(t *testing.T) {
	job := begin(t, op.NewTracker(), func() {})
	slow, quick := job.Stage("commit"), job.Stage("disk")
	quick.End(errors.New("no space"))
	slow.End(errors.New("called off because of it"))
	job.Finish(errors.New("no space"))
	if o := job.Snapshot(); o.Error.Stage != "disk" {
		t.Errorf("the error is in stage %q", o.Error.Stage)
	}
}

func TestCancel(t *testing.T) {
	tr := op.NewTracker()
	called := 0
	job := begin(t, tr, func() { called++ })
	id := job.Snapshot().ID
	if err := tr.Cancel(id); err != nil || called != 1 {
		t.Errorf("cancel: %v, called %d times", err, called)
	}
	job.Finish(nil)
	if err := tr.Cancel(id); !fault.Is(err, fault.WrongState) {
		t.Errorf("cancel of an ended operation: %v", err)
	}
	if err := tr.Cancel("op-none"); !fault.Is(err, fault.WrongState) {
		t.Errorf("cancel of no operation: %v", err)
	}
}

// A burst of stages is told once, what changes later is told too, and the end at once.
func TestFollowRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := op.NewTracker()
		job := begin(t, tr, func() {})
		begun := time.Now()
		var stages []int
		var ended time.Duration
		go func() {
			_ = tr.Follow(t.Context(), job.Snapshot().ID, func(o op.Operation) error {
				stages, ended = append(stages, len(o.Stages)), time.Since(begun)
				return nil
			})
		}()
		synctest.Wait()
		for range 10 {
			job.Stage("disk").End(nil)
			<-time.After(time.Millisecond)
		}
		<-time.After(time.Second)
		job.Stage("boot").End(nil)
		synctest.Wait()
		job.Finish(nil)
		synctest.Wait()
		if want := []int{0, 10, 11, 11}; !slices.Equal(stages, want) || ended != 1010*time.Millisecond {
			t.Errorf("told were %v stages, the end after %v; want %v", stages, ended, want)
		}
	})
}

func TestFollowEndsWithItsContext(t *testing.T) {
	tr := op.NewTracker()
	job := begin(t, tr, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	err := tr.Follow(ctx, job.Snapshot().ID, func(op.Operation) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := tr.Follow(t.Context(), "op-none", nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("follow of no operation: %v", err)
	}
}

func TestEndedOperationsAreForgottenInTime(t *testing.T) {
	tr := op.NewTracker()
	first := begin(t, tr, func() {})
	first.Finish(nil)
	for range 200 {
		begin(t, tr, func() {}).Finish(nil)
	}
	if _, ok := tr.Get(first.Snapshot().ID); ok || len(tr.List()) != 200 {
		t.Errorf("%d operations are kept", len(tr.List()))
	}
}
