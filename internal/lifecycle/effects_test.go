package lifecycle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"banger/internal/vm"
)

// verb is one way to change the VM "dev", with what must stand before it.
type verb struct {
	name    string
	arrange func(*world)
	act     func(*world) error
}

func verbs() []verb {
	created := func(w *world) { w.must(w.create("dev")) }
	stopped := func(w *world) {
		created(w)
		w.must(w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)))
	}
	return []verb{
		{"create", func(*world) {}, func(w *world) error { return w.create("dev") }},
		{"start", stopped, func(w *world) error { return w.end(w.m.Start(w.t.Context(), alice, "dev")) }},
		{"stop", created, func(w *world) error { return w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)) }},
		{"kill", created, func(w *world) error { return w.end(w.m.Kill(w.t.Context(), alice, "dev")) }},
		{"delete", created, func(w *world) error { return w.end(w.m.Delete(w.t.Context(), alice, "dev", true)) }},
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
	all, err := w.m.List(t.Context(), root)
	w.must(err)
	records, err := w.store.Records(t.Context(), "")
	w.must(err)
	switch {
	case len(all) == 0:
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
	w.must(w.end(w.m.Delete(t.Context(), alice, "dev", true)))
	w.holds()
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
				if err != nil && !strings.Contains(err.Error(), "dev") {
					t.Errorf("the error does not say on what: %v", err)
				}
				w.host.FailAt(0)
				w.must(w.m.Idle(t.Context()))
				w.restart()
				settled(t, w)
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
				settled(t, w)
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
