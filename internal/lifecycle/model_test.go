package lifecycle_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

// gone is the state, in the model, of a VM that is not there.
const gone = vm.State("gone")

// outcome is where an action leaves its VM, and what it does to the number of its namesakes in the trash.
type outcome struct {
	state vm.State // empty: as before
	trash int
}

// action is something that befalls a VM.
type action struct {
	can  func(state vm.State, trash int) bool
	do   func(w *world, name string) error
	ends outcome
	may  []vm.State // where it may stand otherwise, if the action was disturbed, beside as before
	// noticed says that the guest acts, and that the daemon is to notice.
	noticed bool
}

func actions() map[string]action {
	in := func(states ...vm.State) func(vm.State, int) bool {
		return func(s vm.State, _ int) bool { return slices.Contains(states, s) }
	}
	up, down, there := in(vm.Running), in(vm.Stopped, vm.Crashed), in(vm.Running, vm.Stopped, vm.Crashed)
	remove := func(now bool) func(*world, string) error {
		return func(w *world, name string) error {
			return w.end(w.m.Delete(w.t.Context(), alice, name, lifecycle.DeleteRequest{Force: true, Now: now}))
		}
	}
	guest := func(does func(w *world, id vm.ID)) func(*world, string) error {
		return func(w *world, name string) error { return w.noticed(name, does) }
	}
	return map[string]action{
		"create":  {can: in(gone), do: (*world).create, ends: outcome{state: vm.Running}},
		"start":   {can: down, do: func(w *world, n string) error { return w.end(w.m.Start(w.t.Context(), alice, n)) }, ends: outcome{state: vm.Running}, may: []vm.State{vm.Stopped}},
		"stop":    {can: up, do: func(w *world, n string) error { return w.end(w.m.Stop(w.t.Context(), alice, n, 0)) }, ends: outcome{state: vm.Stopped}},
		"kill":    {can: up, do: func(w *world, n string) error { return w.end(w.m.Kill(w.t.Context(), alice, n)) }, ends: outcome{state: vm.Stopped}},
		"delete":  {can: there, do: remove(false), ends: outcome{state: gone, trash: 1}},
		"destroy": {can: there, do: remove(true), ends: outcome{state: gone}},
		"restore": {
			can: func(s vm.State, trash int) bool { return s == gone && trash == 1 },
			do:  func(w *world, n string) error { return w.end(w.m.Restore(w.t.Context(), alice, n, "")) }, ends: outcome{state: vm.Stopped, trash: -1},
		},
		"empty": {
			can: func(_ vm.State, trash int) bool { return trash == 1 },
			do:  func(w *world, n string) error { return w.end(w.m.Destroy(alice, n)) }, ends: outcome{trash: -1},
		},
		"set": {can: there, do: func(w *world, n string) error {
			return w.end(w.m.Set(w.t.Context(), alice, n, lifecycle.SetRequest{Settings: settings("memory", "512M", "work_disk", "9G")}))
		}},
		"crash":     {can: up, do: guest(func(w *world, id vm.ID) { w.host.Crash(id) }), ends: outcome{state: vm.Crashed}, noticed: true},
		"panic":     {can: up, do: guest(func(w *world, id vm.ID) { w.host.Panic(id) }), ends: outcome{state: vm.Crashed}, noticed: true},
		"power off": {can: up, do: guest(func(w *world, id vm.ID) { w.host.Poweroff(id) }), ends: outcome{state: vm.Stopped}, may: []vm.State{vm.Crashed}, noticed: true},
		"reboot":    {can: up, do: guest(func(w *world, id vm.ID) { w.host.Reboot(id) }), ends: outcome{state: vm.Running}, may: []vm.State{vm.Stopped, vm.Crashed}, noticed: true},
	}
}

// noticed lets a VM's guest do something, and waits for what the daemon makes of it, or for the daemon's end.
func (w *world) noticed(name string, does func(*world, vm.ID)) error {
	known := map[op.ID]bool{}
	for _, o := range w.m.Tracker.List() {
		known[o.ID] = true
	}
	does(w, w.find(name).ID)
	late := time.After(20 * time.Second)
	for !w.host.Crashed() {
		for _, o := range w.m.Tracker.List() {
			switch {
			case known[o.ID] || o.Kind != lifecycle.KindEnded || !o.State.Ended():
			case o.Error != nil:
				return o.Error
			default:
				return nil
			}
		}
		select {
		case <-late:
			w.t.Fatalf("nobody noticed what %s did", name)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// model is what a world is expected to be.
type model struct {
	*world
	actions map[string]action
	states  map[string]vm.State
	trash   map[string]int
}

// step does one of the actions that can befall any VM now to one of those, maybe disturbed, and compares what came of it.
func (m *model) step(t *rapid.T) {
	subjects := map[string][]string{}
	for kind, a := range m.actions {
		for name, state := range m.states {
			if a.can(state, m.trash[name]) {
				subjects[kind] = append(subjects[kind], name)
			}
		}
	}
	kind := rapid.SampledFrom(slices.Sorted(maps.Keys(subjects))).Draw(t, "action")
	name := rapid.SampledFrom(slices.Sorted(slices.Values(subjects[kind]))).Draw(t, "vm")
	a := m.actions[kind]
	disturbance := rapid.SampledFrom([]string{"none", "fail", "crash"}).Draw(t, "disturbance")
	nth := rapid.IntRange(1, 20).Draw(t, "at effect")
	m.host.FailAt(0)
	switch disturbance {
	case "fail":
		m.host.FailAt(nth)
	case "crash":
		m.host.CrashAt(nth)
	}
	err := a.do(m.world, name)
	m.must(m.m.Idle(t.Context()))
	disturbed := disturbance != "none" && len(m.host.Effects()) >= nth
	if err != nil && !disturbed {
		t.Fatal(err)
	}
	m.host.FailAt(0)
	switch {
	case disturbed && (disturbance == "crash" || rapid.Bool().Draw(t, "restart")):
		m.restart()
	case disturbed:
		if found := m.reconcile(true); len(found) > 0 {
			t.Logf("mended: %v", found)
		}
	}
	m.must(m.m.Idle(t.Context()))

	before := m.states[name]
	ends := a.ends
	if ends.state == "" {
		ends.state = before
	}
	if a.noticed && ends.state != vm.Running {
		m.down(t, name)
	}
	allowed := []outcome{ends}
	if disturbed && !a.noticed && (err != nil || disturbance == "crash") {
		allowed = append(allowed, outcome{before, 0})
	}
	if disturbed && (err != nil || disturbance == "crash") {
		for _, s := range a.may {
			allowed = append(allowed, outcome{s, 0})
		}
	}
	states, trash := m.observe()
	got := outcome{states[name], trash[name] - m.trash[name]}
	if !slices.Contains(allowed, got) {
		t.Fatalf("%s was %s and is %s, %+d in the trash; want one of %v (error: %v, disturbed: %v)", name, before, got.state, got.trash, allowed, err, disturbed)
	}
	m.states[name] = got.state
	m.trash[name] += got.trash
	if !maps.Equal(states, m.states) || !maps.Equal(trash, m.trash) {
		t.Fatalf("others were touched: %v, trash %v; want %v, trash %v", states, trash, m.states, m.trash)
	}
	m.agrees(t)
}

// down waits until a VM whose guest has gone down is known to be down: the daemon that watched it may have ended.
func (m *model) down(t *rapid.T, name string) {
	late := time.After(20 * time.Second)
	for m.find(name).State == vm.Running {
		select {
		case <-late:
			t.Fatalf("%s has gone down, and is still called running", name)
		case <-time.After(time.Millisecond):
		}
	}
	m.must(m.m.Idle(t.Context()))
}

func (m *model) observe() (states map[string]vm.State, trash map[string]int) {
	states, trash = map[string]vm.State{}, map[string]int{}
	for name := range m.states {
		states[name], trash[name] = gone, 0
	}
	all, err := m.m.List(m.t.Context(), root)
	m.must(err)
	for _, v := range all {
		states[v.Name] = v.State
	}
	for _, v := range m.m.Trash(root) {
		trash[v.Name]++
	}
	return states, trash
}

// agrees checks that the host holds exactly what the model says, and that there is nothing to reconcile.
func (m *model) agrees(t *rapid.T) {
	var want []string
	for name, state := range m.states {
		if state == vm.Running {
			want = append(want, m.runningText(name)...)
		} else if state != gone {
			want = append(want, m.stoppedText(name)...)
		}
		for range m.trash[name] {
			want = append(want, m.trashedText(name)...)
		}
	}
	slices.Sort(want)
	m.holds(compactBridges(want)...)
	if found := m.reconcile(false); len(found) > 0 {
		t.Fatalf("there is something to reconcile: %v", found)
	}
	records, err := m.store.Records(t.Context(), "")
	m.must(err)
	for _, r := range records {
		if r.Until == vm.UntilStop && !slices.ContainsFunc(slices.Collect(maps.Keys(m.states)), func(n string) bool {
			return m.states[n] == vm.Running && m.find(n).ID == r.VM
		}) {
			t.Fatalf("%+v is held by no VM that runs", r)
		}
	}
}

// compactBridges leaves the one bridge that all have in common once. The lines are sorted.
func compactBridges(lines []string) []string {
	return slices.CompactFunc(lines, func(a, b string) bool { return a == b && a[:len("bridge")] == "bridge" })
}

// TestRandomSequences does 200 random sequences of verbs and mishaps to eight VMs, any of them disturbed by a failure or by
// the daemon's end at any effect. After each step the host must hold what the model says, and nothing else.
func TestRandomSequences(t *testing.T) {
	const parts = 2 // of 100 each, which is what rapid tries
	for part := range parts {
		t.Run(fmt.Sprint(part), func(all *testing.T) {
			all.Parallel()
			rapid.Check(all, func(t *rapid.T) {
				m := &model{world: openWorld(t, all.TempDir()), actions: actions(), states: map[string]vm.State{}, trash: map[string]int{}}
				defer m.close()
				for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
					m.states[name], m.trash[name] = gone, 0
				}
				t.Repeat(map[string]func(*rapid.T){"step": m.step})
			})
		})
	}
}
