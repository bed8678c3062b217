package lifecycle_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// TestTheExampleOfContributing holds the feature that CONTRIBUTING.md shows to the one that is run below.
func TestTheExampleOfContributing(t *testing.T) {
	text, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("keeper_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```go\n")
	shown, _, _ := strings.Cut(rest, "```")
	// Where it stands is not part of the example.
	_, code, _ := strings.Cut(string(want), "// keeper keeps")
	if d := cmp.Diff("// keeper keeps"+code, shown); d != "" {
		t.Errorf("CONTRIBUTING.md shows another example than keeper_test.go (-runs +shown):\n%s", d)
	}
}

// TestAFeatureIsOneLine adds the example to the slice and nothing else: its setting is set, waits and is refused as
// any other, and it keeps its VM from being deleted until the way out is taken that it names.
func TestAFeatureIsOneLine(t *testing.T) {
	w := newWorld(t)
	w.more = []feature.Feature{keeper{}}
	w.restart()
	w.must(w.create("dev"))
	w.must(w.create("other"))

	if err := w.set("keep", "two\nlines"); code(err) != fault.Invalid || !strings.HasPrefix(err.Error(), `read keep `) {
		t.Errorf("got %v", err)
	}
	w.must(w.set("keep", "until the release"))
	if d := cmp.Diff([]string{"keep"}, w.find("dev").Pending); d != "" {
		t.Errorf("waiting: %s", d)
	}
	for _, r := range []lifecycle.DeleteRequest{{Force: true}, {Force: true, Now: true}} {
		err := w.end(w.m.Delete(t.Context(), alice, "dev", r))
		if f := fault.From(err); code(err) != fault.InUse || err.Error() != `delete VM "dev": it is kept: until the release` ||
			f.Hint != "if that is over: banger vm set dev --set keep=" {
			t.Errorf("got %v, %q", err, f.Hint)
		}
	}
	if v := w.find("dev"); v.State != vm.Running || v.Desired != vm.Running {
		t.Errorf("it is %s after a delete that was refused", v.State)
	}
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	v := w.find("dev")
	motd := ""
	for _, f := range w.host.Config(v.ID).Files {
		if f.Path == "/etc/motd" {
			motd = string(f.Content)
		}
	}
	if motd != "kept: until the release\n" || len(v.Pending) > 0 {
		t.Errorf("the guest reads %q; waiting: %v", motd, v.Pending)
	}
	w.restart() // it is in the store
	w.must(w.end(w.m.Delete(t.Context(), alice, "other", lifecycle.DeleteRequest{Force: true, Now: true})))
	w.must(w.set("keep", ""))
	w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Force: true, Now: true})))
	w.holds()
}

// sickly is a feature of a host that lacks something.
type sickly struct{ lacks error }

func (sickly) Name() string                         { return "sickly" }
func (sickly) Contribute(vm.VM, *feature.Blueprint) {}

func (s sickly) Preflight(context.Context, vm.VM) error { return s.lacks }

func TestAFeaturesPreflightComesBeforeAnything(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("old"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "old", 0)))
	w.more = []feature.Feature{sickly{fault.New(fault.Requirement, "no such module").WithHint("load it")}}
	w.restart()
	w.host.FailAt(0)
	if err := w.create("dev"); code(err) != fault.Requirement || err.Error() != `create VM "dev": no such module` {
		t.Errorf("create: %v", err)
	}
	if _, err := w.m.Start(t.Context(), alice, "old"); code(err) != fault.Requirement || err.Error() != `start VM "old": no such module` {
		t.Errorf("start: %v", err)
	}
	if done := w.host.Effects(); len(done) > 0 {
		t.Errorf("it did %v", done)
	}
}
