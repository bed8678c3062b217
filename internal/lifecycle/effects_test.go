package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/op"
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
	unknown := func(w *world) { stopped(w); w.forget("dev") }
	unknownRunning := func(w *world) { created(w); w.m.Close(); w.forget("dev"); w.boot() }
	adopts := func(w *world) error { return w.end(w.m.Adopt(w.t.Context(), alice, "dev", "")) }
	planted := func(w *world) { created(w); w.host.Plant("btab12-ffffffff") }
	reconciles := func(w *world) error {
		for _, f := range w.looks(true) {
			if f.Err != nil {
				return fmt.Errorf("%s: dev: %w", f.Subject, f.Err)
			}
		}
		return nil
	}
	kept := func(w *world) { w.createKept("dev") }
	paused := func(w *world) {
		created(w)
		w.fill(0)
	}
	imports := func(w *world) error {
		return w.end(w.m.ImportImage(alice, lifecycle.ImportRequest{Name: "mine", Tar: strings.NewReader("tar"), Interrupt: func() {}}, "debian:12"))
	}
	begins := func(w *world) error {
		w.m.Close()
		w.boot()
		return w.m.Idle(w.t.Context())
	}
	// interrupted is a verb that the daemon's death cut short right after an effect.
	interrupted := func(arrange func(*world), act func(*world) error, label string) func(*world) {
		return func(w *world) {
			arrange(w)
			w.host.CrashOn(hosttest.Effect{Label: label, Nth: 1})
			_ = act(w) // nobody hears of it
			w.m.Close()
			w.host.Revive()
		}
	}
	// beside has another VM run, and TAPs kept ready while one does.
	beside := func(w *world) {
		w.host.KeepSpares(2)
		w.must(w.create("other"))
	}
	creates := func(w *world) error { return w.create("dev") }
	starts := func(w *world) error { return w.end(w.m.Start(w.t.Context(), alice, "dev")) }
	stops := func(w *world) error { return w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)) }
	opens := func(w *world) error { return w.createOpen("dev", "8080:80,:81") }
	opened := func(w *world) { w.must(opens(w)) }
	deletes := func(w *world) error {
		return w.end(w.m.Delete(w.t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true}))
	}
	restores := func(w *world) error { return w.end(w.m.Restore(w.t.Context(), alice, "dev", "")) }
	// ill is a verb whose guest's boot fails, as it is bound to.
	ill := func(act func(*world) error) func(*world) error {
		return func(w *world) error {
			w.host.Guest = hosttest.FailsEarly
			err := act(w)
			w.host.Guest = hosttest.Healthy
			if fault.Is(err, fault.GuestFailed) {
				return nil
			}
			return err
		}
	}
	warms := func(w *world) error { return w.end(w.m.WarmImage(w.t.Context(), alice, lifecycle.WarmRequest{})) }
	warmed := func(w *world) { w.must(warms(w)) }
	altered := func(w *world) { warmed(w); w.host.Alter() }
	// over is an arrangement on a host where root overlays are devices.
	over := func(arrange func(*world)) func(*world) {
		return func(w *world) {
			w.root = vm.RootSnapshot
			w.boot()
			arrange(w)
		}
	}
	plantedDevice := func(w *world) { created(w); w.host.PlantDevice("banger-ab12-ffffffffffff") }
	forks := func(w *world) error {
		return w.end(w.m.Fork(w.t.Context(), alice, "dev", lifecycle.ForkRequest{Count: 2}))
	}
	keeps := func(w *world) error { return w.end(w.m.Checkpoint(w.t.Context(), alice, "dev", "before")) }
	rollsBack := func(w *world) error { return w.end(w.m.Rollback(w.t.Context(), alice, "dev", "before")) }
	checkpointed := func(w *world) { created(w); w.must(keeps(w)) }
	seedless := func(arrange func(*world)) func(*world) {
		return func(w *world) {
			arrange(w)
			w.host.LoseSeed(debian().ID)
		}
	}
	// healing is a verb, and what goes on behind it.
	healing := func(act func(*world) error) func(*world) error {
		return func(w *world) error { return errors.Join(act(w), w.m.Idle(w.t.Context())) }
	}
	moved := func(arrange func(*world)) func(*world) {
		return func(w *world) {
			arrange(w)
			w.network = elsewhere()
			w.boot()
		}
	}
	lostOverlay := func(w *world) { created(w); w.host.LoseOverlay(w.find("dev").ID) }
	return []verb{
		{"reconcile a lost overlay", "dev", over(lostOverlay), reconciles, settled},
		{"fork", "dev", created, forks, forkSettled},
		{"fork stopped", "dev", stopped, forks, forkSettled},
		{"checkpoint", "dev", created, keeps, warmSettled},
		{"rollback", "dev", checkpointed, rollsBack, rollbackSettled},
		{"rollback stopped", "dev", func(w *world) { checkpointed(w); w.must(stops(w)) }, rollsBack, rollbackSettled},
		{"image warm", "debian:12", nothing, warms, warmSettled},
		{"create warm", "dev", warmed, creates, warmSettled},
		{"create of an altered snapshot", "dev", altered, creates, warmSettled},
		{"fork over a device", "dev", over(created), forks, forkSettled},
		{"fork stopped over a device", "dev", over(stopped), forks, forkSettled},
		{"checkpoint over a device", "dev", over(created), keeps, warmSettled},
		{"rollback over a device", "dev", over(checkpointed), rollsBack, rollbackSettled},
		{"create over a device", "dev", over(nothing), creates, settled},
		{"start over a device", "dev", over(stopped), starts, settled},
		{"stop over a device", "dev", over(created), stops, settled},
		{"delete over a device", "dev", over(created), deletes, settled},
		{"set over a device", "dev", over(created), (*world).setAll, setSettled},
		{"set stopped over a device", "dev", over(stopped), (*world).setAll, setSettled},
		{"image warm over a device", "debian:12", over(nothing), warms, warmSettled},
		{"create warm over a device", "dev", over(warmed), creates, warmSettled},
		{"reconcile orphans over a device", "dev", over(plantedDevice), reconciles, settled},
		{"create without a work seed", "dev", seedless(nothing), healing(creates), settled},
		{"image warm without a work seed", "debian:12", seedless(nothing), healing(warms), warmSettled},
		{"create that fails", "dev", nothing, ill(creates), settled},
		{"start that fails", "dev", stopped, ill(starts), settled},
		{"daemon's start", "dev", created, begins, settled},
		{"daemon's start after half a create", "dev", interrupted(nothing, creates, "start hypervisor"), begins, settled},
		{"daemon's start after half a start", "dev", interrupted(stopped, starts, "start hypervisor"), begins, settled},
		{"daemon's start after half a stop", "dev", interrupted(created, stops, "commit stopping"), begins, settled},
		{"daemon's start after half a delete", "dev", interrupted(created, deletes, "commit deleting"), begins, settled},
		{"daemon's start after half a restore", "dev", interrupted(deleted, restores, "commit intent"), begins, settled},
		{"create", "dev", nothing, creates, settled},
		{"create of a spare TAP", "dev", beside, creates, besideSettled},
		{"delete of the last beside spare TAPs", "other", beside, func(w *world) error {
			return w.end(w.m.Delete(w.t.Context(), alice, "other", lifecycle.DeleteRequest{Force: true, Now: true}))
		}, besideSettled},
		{"start", "dev", stopped, starts, settled},
		{"start in another subnet", "dev", moved(stopped), starts, settled},
		{"rollback in another subnet", "dev", moved(checkpointed), rollsBack, rollbackSettled},
		{"stop", "dev", created, stops, settled},
		{"kill", "dev", created, func(w *world) error { return w.end(w.m.Kill(w.t.Context(), alice, "dev")) }, settled},
		{"delete", "dev", created, func(w *world) error {
			return w.end(w.m.Delete(w.t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true, Now: true}))
		}, settled},
		{"delete to trash", "dev", created, deletes, settled},
		{"restore", "dev", deleted, restores, settled},
		{"adopt", "dev", unknown, adopts, adopted},
		{"adopt running", "dev", unknownRunning, adopts, adopted},
		{"reconcile orphans", "dev", planted, reconciles, settled},
		{"empty trash", "dev", deleted, func(w *world) error { return w.end(w.m.Destroy(alice, "dev")) }, settled},
		{"power off", "dev", created, func(w *world) error { return w.ends(lifecycle.KindEnded, (*hosttest.Host).Poweroff) }, settled},
		{"reboot", "dev", created, func(w *world) error { return w.ends(lifecycle.KindEnded, (*hosttest.Host).Reboot) }, settled},
		{"restart", "dev", kept, func(w *world) error { return w.ends(lifecycle.KindRestart, (*hosttest.Host).Crash) }, broughtBack},
		{"pause", "dev", created, func(w *world) error { w.fill(0); return w.turned(lifecycle.KindPause) }, resumed},
		{"resume", "dev", paused, func(w *world) error { w.fill(vm.TiB); return w.turned(lifecycle.KindResume) }, resumed},
		{"stop paused", "dev", paused, stops, resumed},
		{"kill paused", "dev", paused, func(w *world) error { return w.end(w.m.Kill(w.t.Context(), alice, "dev")) }, resumed},
		{"set", "dev", created, (*world).setAll, setSettled},
		{"set stopped", "dev", stopped, (*world).setAll, setSettled},
		{"set paused", "dev", paused, func(w *world) error { return w.set("memory", "512M", "name", "other") }, func(t *testing.T, w *world) {
			w.fill(vm.TiB)
			setSettled(t, w)
		}},
		{"start after half a set", "other", interrupted(stopped, (*world).setAll, "commit stopped"), func(w *world) error {
			w.boot()
			return w.end(w.m.Start(w.t.Context(), alice, "other"))
		}, setSettled},
		{"create with ports", "dev", nothing, opens, settled},
		{"stop with ports", "dev", opened, stops, settled},
		{"reboot with ports", "dev", opened, func(w *world) error { return w.ends(lifecycle.KindEnded, (*hosttest.Host).Reboot) }, settled},
		{"daemon's start with ports", "dev", opened, begins, settled},
		{"daemon's start after its death with ports", "dev", func(w *world) { opened(w); w.m.Close(); w.host.Revive() }, begins, settled},
		{"set first port", "dev", created, func(w *world) error { return w.set("ports", "+8080:80") }, settled},
		{"set ports", "dev", opened, func(w *world) error { return w.set("ports", "-8080,+9090:90") }, settled},
		{"image pull", "debian:13", nothing, func(w *world) error { return w.end(w.m.PullImage(alice, "debian:13")) }, imagesSettled},
		{"image import", "mine", nothing, imports, imagesSettled},
		{"image delete", "debian:arm", nothing, func(w *world) error { return w.m.DeleteImage(w.t.Context(), alice, "debian:arm") }, imagesSettled},
	}
}

// ends lets dev's guest end by itself, and waits for the operation by which the daemon deals with that.
func (w *world) ends(kind string, how func(*hosttest.Host, vm.ID)) error {
	before := w.find("dev")
	how(w.host, before.ID)
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for {
		for _, o := range w.m.Tracker.List() {
			switch {
			case o.Kind != kind && o.Kind != lifecycle.KindEnded:
			case o.Error != nil:
				return o.Error
			case o.Kind == kind && o.State.Ended():
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

// effects lists the effects of a verb that nothing disturbs, and the kinds of its operations.
func effects(t *testing.T, v verb) (all []hosttest.Effect, kinds []string) {
	t.Helper()
	w := newWorld(t)
	v.arrange(w)
	w.host.FailAt(0)
	before := map[op.ID]bool{}
	for _, o := range w.m.Tracker.List() {
		before[o.ID] = true
	}
	w.must(v.act(w))
	w.must(w.m.Idle(t.Context()))
	for _, o := range w.m.Tracker.List() {
		if !before[o.ID] {
			kinds = append(kinds, o.Kind)
		}
	}
	return hosttest.Each(w.host.Effects()), kinds
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
			w.holds(w.trashedText("dev")...)
			w.must(w.end(w.m.Restore(t.Context(), alice, "dev", "")))
			w.holds(w.stoppedText("dev")...)
			w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Now: true})))
		}
		w.holds()
		if len(records) > 0 {
			t.Errorf("records without a VM: %v", records)
		}
		w.must(w.create("dev"))
	case all[0].State == vm.Running:
		w.holds(w.runningText("dev")...)
	case all[0].State == vm.Stopped || all[0].State == vm.Crashed:
		w.holds(w.stoppedText("dev")...)
		w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	default:
		t.Errorf("dev is left %s", all[0].State)
	}
	w.holds(w.runningText("dev")...)
	w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true, Now: true})))
	w.holds()
}

// besideSettled takes the other VM away where it is there, and then checks as settled does.
func besideSettled(t *testing.T, w *world) {
	t.Helper()
	if _, err := w.m.Find(t.Context(), alice, "other"); err == nil {
		w.must(w.end(w.m.Delete(t.Context(), alice, "other", lifecycle.DeleteRequest{Force: true, Now: true})))
	}
	settled(t, w)
}

// adopted checks that dev is known or can be adopted still, and then as settled does.
func adopted(t *testing.T, w *world) {
	t.Helper()
	if all, err := w.m.List(t.Context(), root); err != nil || len(all) == 0 {
		w.must(w.end(w.m.Adopt(t.Context(), alice, "dev", "")))
	}
	settled(t, w)
}

// broughtBack checks that dev, which is kept up, has come up again, and then as settled does.
func broughtBack(t *testing.T, w *world) {
	t.Helper()
	w.await("dev", vm.Running)
	settled(t, w)
}

// warmSettled checks that there is no half a snapshot, and then as settled does.
func warmSettled(t *testing.T, w *world) {
	t.Helper()
	w.fill(vm.TiB) // what stands still for no reason goes on
	w.must(w.m.Idle(t.Context()))
	if text := w.host.Text(); strings.Contains(text, "not sealed") {
		t.Errorf("half a snapshot is left:\n%s", text)
	}
	w.host.LoseSnapshots()
	settled(t, w)
}

// forkSettled checks that the forks are whole or gone and nothing is left of what they were made of, and then as
// settled does.
func forkSettled(t *testing.T, w *world) {
	t.Helper()
	w.fill(vm.TiB) // what stands still for no reason goes on
	w.must(w.m.Idle(t.Context()))
	if text := w.host.Text(); strings.Contains(text, "snapshot") {
		t.Errorf("what was forked from is left:\n%s", text)
	}
	all, err := w.m.List(t.Context(), root)
	w.must(err)
	for _, v := range all {
		if v.Name != "dev" {
			if v.State != vm.Running {
				t.Errorf("%s is left %s", v.Name, v.State)
			}
			w.must(w.end(w.m.Delete(t.Context(), alice, v.Name, lifecycle.DeleteRequest{Force: true, Now: true})))
		}
	}
	settled(t, w)
}

// rollbackSettled checks that nothing is lost: that there is one VM with the disks of one of the two, and in the trash
// at most the other's. Then as settled does.
func rollbackSettled(t *testing.T, w *world) {
	t.Helper()
	w.must(w.m.Idle(t.Context()))
	trash := w.m.Trash(root)
	if len(trash) > 1 {
		t.Errorf("the trash holds %d VMs", len(trash))
	}
	if w.find("dev").State == vm.Stopped {
		w.must(w.end(w.m.Start(t.Context(), alice, "dev"))) // its jail may be new
	}
	for _, v := range trash {
		if v.Name != "dev-before-before" {
			t.Errorf("the trash holds %s", v.Name)
		}
		w.must(w.end(w.m.Destroy(alice, string(v.ID))))
	}
	w.host.LoseSnapshots()
	settled(t, w)
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
	w.holds(w.runningText("dev")...)
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
	walk(t, func(t *testing.T, w *world, v verb, e hosttest.Effect) {
		w.host.FailOn(e)
		err := v.act(w)
		if !w.host.Disturbed() {
			t.Error("it was not come to")
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err != nil && !strings.Contains(err.Error(), v.subject) {
			t.Errorf("the error does not say on what: %v", err)
		}
		w.host.FailAt(0)
		w.must(w.m.Idle(t.Context()))
	})
}

// TestCrashAtEveryEffect kills the daemon after each effect of each verb in turn, forgets all that
// it had in memory, and starts another.
func TestCrashAtEveryEffect(t *testing.T) {
	walk(t, func(t *testing.T, w *world, v verb, e hosttest.Effect) {
		w.host.CrashOn(e)
		_ = v.act(w) // whether the client heard of it does not matter
		if !w.host.Disturbed() {
			t.Error("it was not come to")
		}
	})
}

// walk disturbs each effect of each verb in turn, in a world of its own, and then demands order.
func walk(t *testing.T, disturb func(*testing.T, *world, verb, hosttest.Effect)) {
	t.Helper()
	pairs := 0
	for _, v := range verbs() {
		all, _ := effects(t, v)
		pairs += len(all)
		for _, e := range all {
			t.Run(fmt.Sprintf("%s/%s", v.name, e), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				v.arrange(w)
				disturb(t, w, v, e)
				w.restart()
				w.calm()
				w.eventsTellAll()
				v.settled(t, w)
			})
		}
	}
	t.Logf("%d (verb, effect) pairs", pairs)
}

// TestTheWalkIsComplete holds that no kind of operation and no effect of the fake host is left out above.
func TestTheWalkIsComplete(t *testing.T) {
	labels, kinds := map[string]bool{}, map[string]bool{}
	for _, v := range verbs() {
		all, did := effects(t, v)
		for _, e := range all {
			labels[e.Label] = true
		}
		for _, k := range did {
			kinds[k] = true
		}
		t.Logf("%s: %v", v.name, all)
	}
	for _, k := range lifecycle.Kinds() {
		if !kinds[k] {
			t.Errorf("no verb of the walk is a %s", k)
		}
	}
	for _, label := range labelsOf(t, "../hosttest") {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(labels)), func(l string) bool { return strings.HasPrefix(l, label) }) {
			t.Errorf("no verb of the walk comes to the effect %q", label)
		}
	}
}

// labelsOf finds the labels of all effects in the fake host's source. One that ends in a space is the beginning of
// some.
func labelsOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			callee, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"effect", "pass", "stand", "change"}, callee.Sel.Name) {
				return true
			}
			ast.Inspect(call, func(n ast.Node) bool {
				if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
					label, err := strconv.Unquote(text.Value)
					if err != nil {
						t.Fatal(err)
					}
					labels = append(labels, label)
				}
				return true
			})
			return true
		})
	}
	if len(labels) < 20 {
		t.Fatalf("only %d labels were found: %v", len(labels), labels)
	}
	return labels
}
