package lifecycle_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

// set changes settings of dev, given as KEY, VALUE, KEY, VALUE, …
func (w *world) set(pairs ...string) error { return w.end(w.setting(pairs...)) }

func (w *world) setting(pairs ...string) (op.Operation, error) {
	w.t.Helper()
	return w.m.Set(w.t.Context(), alice, "dev", lifecycle.SetRequest{Settings: settings(pairs...)})
}

func settings(pairs ...string) map[string]string {
	out := map[string]string{}
	for pair := range slices.Chunk(pairs, 2) {
		out[pair[0]] = pair[1]
	}
	return out
}

// setAll changes everything about dev that can be changed.
func (w *world) setAll() error {
	return w.set("vcpu", "4", "memory", "512M", "root_disk", "2G", "work_disk", "16G", "name", "other", "egress", "none")
}

// setSettled checks that each setting is the old or the new one, that a guest sees what is not said to wait, and that
// after the next start it sees all.
func setSettled(t *testing.T, w *world) {
	t.Helper()
	w.must(w.m.Idle(t.Context()))
	all, err := w.m.List(t.Context(), alice)
	w.must(err)
	v := all[0]
	old := vm.Spec{VCPU: 2, Memory: vm.GiB, RootDisk: vm.GiB, WorkDisk: 8 * vm.GiB}
	wanted := vm.Spec{VCPU: 4, Memory: 512 * vm.MiB, RootDisk: 2 * vm.GiB, WorkDisk: 16 * vm.GiB}
	for _, ok := range []bool{
		v.Spec.VCPU == old.VCPU || v.Spec.VCPU == wanted.VCPU, v.Spec.Memory == old.Memory || v.Spec.Memory == wanted.Memory,
		v.Spec.RootDisk == old.RootDisk || v.Spec.RootDisk == wanted.RootDisk,
		v.Spec.WorkDisk == old.WorkDisk || v.Spec.WorkDisk == wanted.WorkDisk, v.Name == "dev" || v.Name == "other",
	} {
		if !ok {
			t.Errorf("neither old nor new: %s, %+v", v.Name, v.Spec)
		}
	}
	if v.State == vm.Running {
		got, want := w.host.Seen(v.ID), asWanted(v)
		for _, key := range v.Pending {
			forget(t, key, &got, &want)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("the guest does not see what is not said to wait (-want +seen):\n%s\nwaiting: %v", d, v.Pending)
		}
		w.must(w.end(w.m.Stop(t.Context(), alice, string(v.ID), 0)))
	}
	w.must(w.end(w.m.Start(t.Context(), alice, string(v.ID))))
	v, err = w.m.Find(t.Context(), alice, string(v.ID))
	w.must(err)
	if d := cmp.Diff(asWanted(v), w.host.Seen(v.ID)); d != "" || len(v.Pending) > 0 {
		t.Errorf("after a start (-want +seen):\n%s\nwaiting: %v", d, v.Pending)
	}
	if want := "rules for btab12-" + v.Name + ": egress " + orAll(v.Settings["egress"]) + ", nat"; !strings.Contains(w.host.Text(), want) {
		t.Errorf("after a start the host has not %q:\n%s", want, w.host.Text())
	}
	w.must(w.end(w.m.Set(t.Context(), alice, string(v.ID), lifecycle.SetRequest{Settings: settings("name", "dev", "egress", "default")})))
	settled(t, w)
}

func orAll(egress string) string {
	if egress == "" {
		return "all"
	}
	return egress
}

// asWanted is what a guest sees that has all that is asked for.
func asWanted(v vm.VM) hosttest.Seen {
	return hosttest.Seen{VCPU: v.Spec.VCPU, Memory: v.Spec.Memory, Root: v.Spec.RootDisk, Work: v.Spec.WorkDisk, Hostname: v.Name}
}

// forget takes a setting that waits out of a comparison.
func forget(t *testing.T, key string, seen ...*hosttest.Seen) {
	t.Helper()
	for _, s := range seen {
		switch key {
		case "egress": // no guest sees it
		case "vcpu":
			s.VCPU = 0
		case "memory":
			s.Memory = 0
		case "root_disk":
			s.Root = 0
		case "work_disk":
			s.Work = 0
		case "name":
			s.Hostname = ""
		default:
			t.Errorf("what is %q?", key)
		}
	}
}

func TestSetOfARunningVM(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	id := w.find("dev").ID
	o, err := w.setting("vcpu", "4", "memory", "512M", "work_disk", "16G", "name", "other", "egress", "none")
	w.must(w.end(o, err))
	v, err := w.m.Find(t.Context(), alice, "other")
	w.must(err)
	want := hosttest.Seen{VCPU: 2, Memory: 512 * vm.MiB, Root: vm.GiB, Work: 16 * vm.GiB, Hostname: "other"}
	if d := cmp.Diff(want, w.host.Seen(id)); d != "" {
		t.Errorf("the guest sees (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"vcpu"}, v.Pending); d != "" {
		t.Errorf("waiting: %s", d)
	}
	o, err = w.store.Operation(t.Context(), o.ID)
	w.must(err)
	if d := cmp.Diff([]string{"other: vcpu takes effect at the next start: a guest keeps the vCPUs that it was booted with"}, o.Warnings); d != "" {
		t.Error(d)
	}

	// What is taken back waits no more; memory comes back up to what it was booted with, and beyond that it waits.
	w.must(w.end(w.m.Set(t.Context(), alice, "other", lifecycle.SetRequest{Settings: settings("vcpu", "2", "memory", "2G", "name", "dev")})))
	v = w.find("dev")
	if d := cmp.Diff([]string{"memory"}, v.Pending); d != "" || w.host.Seen(id).Memory != vm.GiB {
		t.Errorf("waiting: %s; the guest sees %+v", d, w.host.Seen(id))
	}
	w.must(w.ends(lifecycle.KindEnded, (*hosttest.Host).Reboot))
	if d := cmp.Diff(asWanted(w.find("dev")), w.host.Seen(id)); d != "" || w.find("dev").Pending != nil {
		t.Errorf("after a reboot (-want +seen):\n%s", d)
	}
}

// TestPolicyIsTrueAtOnce holds that what a guest may do on the network follows its owner while it runs, and that each start
// has the rules that are wanted by then.
func TestPolicyIsTrueAtOnce(t *testing.T) {
	w := newWorld(t)
	w.must(w.end(w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev", Settings: settings("isolated", "on")})))
	rules := func(want string) {
		t.Helper()
		if text := w.host.Text(); !strings.Contains(text, "rules for btab12-dev: "+want+"\n") {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	rules("egress all, isolated, nat")
	w.must(w.set("isolated", "default"))
	w.must(w.set("nat", "off"))
	rules("egress all")
	w.must(w.end(w.m.Set(t.Context(), alice, "dev", lifecycle.SetRequest{Settings: settings("egress", "list", "allow", "example.com")})))
	rules("allow example.com, egress list")
	w.must(w.set("allow", "+203.0.113.0/24"))
	rules("allow example.com,203.0.113.0/24, egress list")
	if v := w.find("dev"); v.Pending != nil {
		t.Errorf("waiting: %v", v.Pending)
	}
	w.host.FailOn(hosttest.Effect{Label: "put guest into firewall", Nth: 1})
	if err := w.set("egress", "all"); err == nil {
		t.Error("a failure was not told of")
	}
	w.host.FailAt(0)
	if v := w.find("dev"); v.Settings["egress"] != "list" {
		t.Errorf("what failed was kept: %v", v.Settings)
	}
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.must(w.set("egress", "none"))
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	rules("allow example.com,203.0.113.0/24, egress none")
	w.must(w.set("egress", "default"))
	w.must(w.set("nat", "default"))
	w.must(w.set("allow", "default"))
	w.holds(w.runningText("dev")...)
	if v := w.find("dev"); len(v.Settings) > 0 {
		t.Errorf("left: %v", v.Settings)
	}
}

// TestCreateTakesSettings holds that a VM is made with what set would give it, and that nothing is made of what it would refuse.
func TestCreateTakesSettings(t *testing.T) {
	w := newWorld(t)
	w.must(w.end(w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev", Settings: settings("restart", "always", "vcpu", "3")})))
	if v := w.find("dev"); v.Restart != vm.RestartAlways || v.Spec.VCPU != 3 {
		t.Errorf("got %+v", v)
	}
	for key, value := range map[string]string{"colour": "red", "vcpu": "99", "restart": "sometimes"} {
		if _, err := w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "other", Settings: settings(key, value)}); code(err) != fault.Invalid {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
}

// TestSetIsRefused holds the words and that nothing was done.
func TestSetIsRefused(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("taken"))
	w.must(w.create("dev"))
	before := w.find("dev")
	for _, c := range []struct{ key, value, err string }{
		{"work_disk", "4G", `size VM's "work_disk": 4 GiB is less than the 8 GiB that it has, and a disk never shrinks`},
		{"root_disk", "100T", `size VM's "root-disk": 100 TiB is out of range`},
		{"memory", "1M", `size VM's "memory": 1 MiB is out of range`},
		{"memory", "lots", `read size "lots": the unit is unknown`},
		{"vcpu", "two", `read vcpu "two": it is no whole number`},
		{"vcpu", "99", `size VM's "vcpu": 99 is out of range`},
		{"name", "My VM", `name VM "My VM": it is not a valid host name`},
		{"name", "taken", `set VM "dev": the name is taken`},
		{"restart", "sometimes", `read restart policy: "sometimes" is no restart policy`},
		{"isolated", "maybe", `read isolated "maybe": it is neither on nor off`},
		{"egress", "some", `read egress "some": it is no egress policy`},
		{"allow", "10.0.0.1/8", `read allow list "10.0.0.1/8": it has address bits beyond its length`},
		{"allow", "-example.com", `read allow list "example.com": the allow list does not have it`},
		{"colour", "red", `set VM "dev": a VM has no setting "colour"`},
	} {
		if err := w.set(c.key, c.value); err == nil || err.Error() != c.err {
			t.Errorf("%s=%s: %v, want %s", c.key, c.value, err, c.err)
		}
	}
	_, err := w.setting("colour", "red")
	if hint := fault.From(err).Hint; hint != "there are allow, egress, isolated, memory, name, nat, nat6, ports, restart, root_disk, vcpu, work_disk" {
		t.Error(hint)
	}
	if d := cmp.Diff(before.Spec, w.find("dev").Spec); d != "" {
		t.Error(d)
	}
	_, err = w.m.Set(t.Context(), bob, "dev", lifecycle.SetRequest{})
	if code(err) != fault.NotFound {
		t.Errorf("another's VM: %v", err)
	}
}

// TestAnOldAgentIsRestarted holds that what an older agent cannot do is done by the next start.
func TestAnOldAgentIsRestarted(t *testing.T) {
	w := newWorld(t)
	w.host.Guest = hosttest.Old
	w.must(w.create("dev"))
	w.host.Guest = hosttest.Healthy
	o, err := w.setting("work_disk", "16G", "name", "other", "egress", "none")
	w.must(w.end(o, err))
	v, err := w.m.Find(t.Context(), alice, "other")
	w.must(err)
	o, err = w.store.Operation(t.Context(), o.ID)
	w.must(err)
	if d := cmp.Diff([]string{"name", "work_disk"}, v.Pending); d != "" || !strings.Contains(strings.Join(o.Warnings, "\n"), "this agent knows no request") {
		t.Errorf("waiting: %s; %q", d, o.Warnings)
	}
	w.must(w.end(w.m.Stop(t.Context(), alice, "other", 0)))
	w.must(w.end(w.m.Start(t.Context(), alice, "other")))
	v, err = w.m.Find(t.Context(), alice, "other")
	w.must(err)
	if d := cmp.Diff(asWanted(v), w.host.Seen(v.ID)); d != "" || len(v.Pending) > 0 {
		t.Errorf("(-want +seen):\n%s\nwaiting: %v", d, v.Pending)
	}
}

func TestPlanOfASet(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.host.FailAt(0)
	website := "website"
	got, err := w.m.PlanSet(t.Context(), alice, "dev", lifecycle.SetRequest{
		Settings: settings("vcpu", "2", "memory", "2G", "work_disk", "9G", "name", "other"),
		Labels:   map[string]*string{"project": &website, "none": nil},
	})
	w.must(err)
	want := []lifecycle.Altered{
		{Key: "memory", From: "1 GiB", To: "2 GiB", Restart: "a guest has no more memory than it was booted with, 1 GiB"},
		{Key: "work_disk", From: "8 GiB", To: "9 GiB"},
		{Key: "name", From: "dev", To: "other"},
		{Key: "label project", To: "website"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if effects := w.host.Effects(); len(effects) > 0 {
		t.Errorf("a plan did %v", effects)
	}
}

func TestLabelsAreSet(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	one, two := "1", "2"
	for _, c := range []struct {
		change map[string]*string
		want   map[string]string
	}{
		{map[string]*string{"a": &one, "b": &one}, map[string]string{"a": "1", "b": "1"}},
		{map[string]*string{"a": &two, "b": nil, "c": nil}, map[string]string{"a": "2"}},
	} {
		w.must(w.end(w.m.Set(t.Context(), alice, "dev", lifecycle.SetRequest{Labels: c.change})))
		if d := cmp.Diff(c.want, w.find("dev").Labels); d != "" {
			t.Error(d)
		}
	}
	_, err := w.m.Set(t.Context(), alice, "dev", lifecycle.SetRequest{Labels: map[string]*string{"Bad Key": &one}})
	if code(err) != fault.Invalid {
		t.Error(err)
	}
}

// TestGrowthIsAdmitted holds that a disk grows within its owner's quota and above the low-water mark, and that what
// could not start is warned of. Memory counts as what the guest was booted with: it can take back what it gave.
func TestGrowthIsAdmitted(t *testing.T) {
	w := newWorld(t)
	w.rules = admission.Rules{Quota: admission.Quota{Disk: 12 * vm.GiB}}
	w.restart()
	w.must(w.create("dev"))
	err := w.set("work_disk", "16G")
	if want := `set VM "dev": the disks of uid 1000 would have 17 GiB, and may have 12 GiB`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	w.host.SetRoom(func(r *hosttest.Room) { r.Memory = 4 * vm.GiB })
	o, err := w.setting("memory", "8G")
	w.must(w.end(o, err))
	o, err = w.store.Operation(t.Context(), o.ID)
	w.must(err)
	if !strings.Contains(strings.Join(o.Warnings, "\n"), "as things are it could not be started: its 8 GiB of memory do not fit") {
		t.Errorf("warnings: %q", o.Warnings)
	}
	w.must(w.set("memory", "256M"))
	w.host.SetRoom(func(r *hosttest.Room) { r.Memory = 2 * vm.GiB })
	if err := w.create("other"); code(err) != fault.Exhausted {
		t.Errorf("memory that a guest gave was given to another: %v", err)
	}
}
