package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// verb is one way to change its subject, with what must stand before it, and what must hold after it,
// however it went.
type verb struct {
	name    string
	subject string
	arrange func(*world)
	act     func(*world) error
	settled func(*testing.T, *world)
}

func verbs() []verb {
	created := func(w *world) { w.must(w.create("dev")) }
	stopped := func(w *world) {
		created(w)
		w.must(w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)))
	}
	deleted := func(w *world) {
		created(w)
		w.must(w.end(w.m.Delete(w.t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true})))
	}
	nothing := func(*world) {}
	paused := func(w *world) {
		created(w)
		w.fill(0)
	}
	imports := func(w *world) error {
		return w.end(w.m.ImportImage(alice, lifecycle.ImportRequest{Name: "mine", Tar: strings.NewReader("tar"), Interrupt: func() {}}, "debian:12"))
	}
	return []verb{
		{"create", "dev", nothing, func(w *world) error { return w.create("dev") }, settled},
		{"start", "dev", stopped, func(w *world) error { return w.end(w.m.Start(w.t.Context(), alice, "dev")) }, settled},
		{"stop", "dev", created, func(w *world) error { return w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)) }, settled},
		{"kill", "dev", created, func(w *world) error { return w.end(w.m.Kill(w.t.Context(), alice, "dev")) }, settled},
		{"delete", "dev", created, func(w *world) error {
			return w.end(w.m.Delete(w.t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true, Now: true}))
		}, settled},
		{"delete to trash", "dev", created, func(w *world) error {
			return w.end(w.m.Delete(w.t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true}))
		}, settled},
		{"restore", "dev", deleted, func(w *world) error { return w.end(w.m.Restore(w.t.Context(), alice, "dev", "")) }, settled},
		{"empty trash", "dev", deleted, func(w *world) error { return w.end(w.m.Destroy(alice, "dev")) }, settled},
		{"power off", "dev", created, func(w *world) error { return w.ends((*hosttest.Host).Poweroff) }, settled},
		{"reboot", "dev", created, func(w *world) error { return w.ends((*hosttest.Host).Reboot) }, settled},
		{"pause", "dev", created, func(w *world) error { w.fill(0); return w.turned(lifecycle.KindPause) }, resumed},
		{"resume", "dev", paused, func(w *world) error { w.fill(vm.TiB); return w.turned(lifecycle.KindResume) }, resumed},
		{"stop paused", "dev", paused, func(w *world) error { return w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)) }, resumed},
		{"kill paused", "dev", paused, func(w *world) error { return w.end(w.m.Kill(w.t.Context(), alice, "dev")) }, resumed},
		{"image pull", "debian:13", nothing, func(w *world) error { return w.end(w.m.PullImage(alice, "debian:13")) }, imagesSettled},
		{"image import", "mine", nothing, imports, imagesSettled},
		{"image delete", "debian:arm", nothing, func(w *world) error { return w.m.DeleteImage(w.t.Context(), alice, "debian:arm") }, imagesSettled},
	}
}

// ends lets dev's guest end by itself, and waits for what the daemon makes of it.
func (w *world) ends(how func(*hosttest.Host, vm.ID)) error {
	before := w.find("dev")
	how(w.host, before.ID)
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for {
		for _, o := range w.m.Tracker.List() {
			if o.Kind == lifecycle.KindEnded && o.State.Ended() {
				if o.Error != nil {
					return o.Error
				}
				return nil
			}
		}
		if w.host.Crashed() {
			return hosttest.ErrCrashed
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("dev did not end: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// effects counts the effects of a verb that nothing disturbs.
func effects(t *testing.T, v verb) []string {
	t.Helper()
	w := newWorld(t)
	v.arrange(w)
	w.host.FailAt(0)
	w.must(v.act(w))
	return w.host.Effects()
}

// settled checks that the host holds exactly what the store says of "dev", then that dev (made anew
// where it is gone) can be started and deleted.
func settled(t *testing.T, w *world) {
	t.Helper()
	w.must(w.m.Idle(t.Context())) // a stop that was interrupted is finished
	nothingUnderway(t, w)
	all, err := w.m.List(t.Context(), root)
	w.must(err)
	records, err := w.store.Records(t.Context(), "")
	w.must(err)
	switch {
	case len(all) == 0:
		for range w.m.Trash(root) {
			w.holds(trashedText("dev")...)
			w.must(w.end(w.m.Restore(t.Context(), alice, "dev", "")))
			w.holds(stoppedText("dev")...)
			w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Now: true})))
		}
		w.holds()
		if len(records) > 0 {
			t.Errorf("records without a VM: %v", records)
		}
		w.must(w.create("dev"))
	case all[0].State == vm.Running:
		w.holds(runningText("dev")...)
	case all[0].State == vm.Stopped || all[0].State == vm.Crashed:
		w.holds(stoppedText("dev")...)
		w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	default:
		t.Errorf("dev is left %s", all[0].State)
	}
	w.holds(runningText("dev")...)
	w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true, Now: true})))
	w.holds()
}

// imagesSettled checks that an image is there or not, that no operation on it seems to go on, and that
// all of it can be done again.
func imagesSettled(t *testing.T, w *world) {
	t.Helper()
	nothingUnderway(t, w)
	w.holds()
	w.must(w.end(w.m.PullImage(alice, "debian:13")))
	w.must(w.m.DeleteImage(t.Context(), alice, "debian:13"))
	w.must(w.create("dev"))
	w.holds(runningText("dev")...)
}

func nothingUnderway(t *testing.T, w *world) {
	t.Helper()
	all, err := w.store.Operations(t.Context(), 100)
	w.must(err)
	for _, o := range all {
		if !o.State.Ended() {
			t.Errorf("%s seems to go on", o.Kind)
		}
	}
}

// TestFailAtEveryEffect makes each effect of each verb fail in turn. What is left must be what the
// store says, if need be after the daemon's next start.
func TestFailAtEveryEffect(t *testing.T) {
	pairs := map[string]bool{}
	for _, v := range verbs() {
		labels := effects(t, v)
		for n := 1; n <= len(labels); n++ {
			t.Run(fmt.Sprintf("%s/%d %s", v.name, n, labels[n-1]), func(t *testing.T) {
				w := newWorld(t)
				v.arrange(w)
				w.host.FailAt(n)
				err := v.act(w)
				seen := w.host.Effects()
				if len(seen) >= n {
					pairs[v.name+" "+seen[n-1]] = true
				}
				if errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				if err != nil && !strings.Contains(err.Error(), v.subject) {
					t.Errorf("the error does not say on what: %v", err)
				}
				w.host.FailAt(0)
				w.must(w.m.Idle(t.Context()))
				w.restart()
				w.eventsTellAll()
				v.settled(t, w)
			})
		}
	}
	report(t, pairs)
}

// TestCrashAtEveryEffect kills the daemon after each effect of each verb in turn, forgets all that
// it had in memory, and starts another.
func TestCrashAtEveryEffect(t *testing.T) {
	pairs := map[string]bool{}
	for _, v := range verbs() {
		labels := effects(t, v)
		for n := 1; n <= len(labels); n++ {
			t.Run(fmt.Sprintf("%s/%d %s", v.name, n, labels[n-1]), func(t *testing.T) {
				w := newWorld(t)
				v.arrange(w)
				w.host.CrashAt(n)
				_ = v.act(w) // whether the client heard of it does not matter
				if seen := w.host.Effects(); len(seen) >= n {
					pairs[v.name+" "+seen[n-1]] = true
				}
				w.restart()
				w.eventsTellAll()
				v.settled(t, w)
			})
		}
	}
	report(t, pairs)
}

func report(t *testing.T, pairs map[string]bool) {
	t.Helper()
	var list []string
	for p := range pairs {
		list = append(list, p)
	}
	slices.Sort(list)
	t.Logf("%d (verb, effect) pairs: %s", len(list), strings.Join(list, ", "))
}
