package lifecycle_test

import (
	"slices"
	"strings"
	"testing"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/sshkey"
	"banger/internal/vm"
)

func (w *world) fork(name string, count int) error {
	return w.end(w.m.Fork(w.t.Context(), alice, "dev", lifecycle.ForkRequest{Name: name, Count: count}))
}

func (w *world) names() (names []string) {
	w.t.Helper()
	all, err := w.m.List(w.t.Context(), root)
	w.must(err)
	for _, v := range all {
		names = append(names, v.Name)
	}
	return names
}

func TestForksAreMachinesOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	key, err := sshkey.New("alice")
	w.must(err)
	w.must(w.end(w.m.Create(t.Context(), alice, lifecycle.CreateRequest{
		Name: "dev", Labels: map[string]string{"project": "site"}, AuthorizedKeys: []string{key.Public},
	})))
	w.must(w.set("memory", "2G")) // for its next start
	w.must(w.create("dev-1"))     // whose name is taken
	w.host.FailAt(0)
	w.must(w.fork("", 2))
	if names := w.names(); !slices.Equal(names, []string{"dev", "dev-1", "dev-2", "dev-3"}) {
		t.Fatalf("there are %v", names)
	}
	dev, one, two := w.find("dev"), w.find("dev-2"), w.find("dev-3")
	for _, f := range []vm.VM{one, two} {
		if f.State != vm.Running || f.Owner != dev.Owner || f.Labels["project"] != "site" || !slices.Equal(f.Access.AuthorizedKeys, dev.Access.AuthorizedKeys) {
			t.Errorf("%s is %s, %d's, %v, with keys %v", f.Name, f.State, f.Owner, f.Labels, f.Access.AuthorizedKeys)
		}
		if f.Access.MachineID == dev.Access.MachineID || f.Access.HostKey == dev.Access.HostKey || f.Lease.Address == dev.Lease.Address {
			t.Errorf("%s has something of dev's identity", f.Name)
		}
		if f.Spec.Memory != vm.GiB || len(f.Pending) > 0 {
			t.Errorf("%s has %d bytes of memory, and what waits is %v", f.Name, f.Spec.Memory, f.Pending)
		}
	}
	if one.Access.MachineID == two.Access.MachineID || one.Access.HostKey == two.Access.HostKey || one.Lease.Address == two.Lease.Address {
		t.Error("the forks share something of their identity")
	}
	if made := w.ops(lifecycle.KindFork)[0].Made; !slices.Contains(made, string(one.ID)) || !slices.Contains(made, string(two.ID)) || len(made) != 2 {
		t.Errorf("the operation made %v", made)
	}
	if text := w.host.Text(); strings.Contains(text, "paused") || strings.Contains(text, "snapshot") {
		t.Errorf("it stands still, or what was forked from is left:\n%s", text)
	}
	if done := w.host.Effects(); slices.Index(done, "resume hypervisor") > slices.Index(done, "restore hypervisor") {
		t.Errorf("it stood still for longer than it had to: %v", done)
	}
}

func TestWhatCannotBeForked(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(*world)
		name    string
		count   int
		code    fault.Code
		want    string
	}{
		"too many":      {count: 65, code: fault.Invalid, want: `fork VM "dev": 65 forks: it can be 1 to 64 at once`},
		"a bad name":    {name: "Dev", code: fault.Invalid, want: `name VM "Dev": it is not a valid host name`},
		"a name taken":  {name: "other", code: fault.AlreadyExists, want: `VM "other"`},
		"one of many":   {name: "many", count: 2, code: fault.AlreadyExists, want: `VM "many-2"`},
		"paused":        {arrange: func(w *world) { w.fill(0) }, code: fault.WrongState, want: `fork VM "dev": it is paused`},
		"quota":         {arrange: func(w *world) { w.m.Rules.Quota.VMs = 4 }, count: 2, code: fault.Exhausted, want: "4"},
		"restore fails": {arrange: func(w *world) { w.host.FailOn(hosttest.Effect{Label: "restore hypervisor", Nth: 2}) }, count: 2, code: fault.Internal, want: `fork VM dev as "dev-`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for _, name := range []string{"dev", "other", "many-2"} {
				w.must(w.create(name))
			}
			w.host.FailAt(0)
			if c.arrange != nil {
				c.arrange(w)
			}
			if err := w.fork(c.name, c.count); code(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s: %v", code(err), err)
			}
			if names := w.names(); !slices.Equal(names, []string{"dev", "many-2", "other"}) {
				t.Errorf("there are %v", names)
			}
			if text := w.host.Text(); strings.Contains(text, "snapshot") {
				t.Errorf("something is left:\n%s", text)
			}
		})
	}
}

func TestForksAreWarnedOfOnce(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.host.SetRoom(func(r *hosttest.Room) { r.Space = admission.Space{Free: 10 * vm.GiB, Size: vm.TiB} })
	w.must(w.fork("", 2))
	if told := w.ops(lifecycle.KindFork)[0].Warnings; len(told) != 1 {
		t.Errorf("it is warned of: %q", told)
	}
}

func TestAStoppedVMIsForkedByItsDisks(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.host.FailAt(0)
	w.must(w.fork("copy", 1))
	if w.did("snapshot memory") || !w.did("start hypervisor") {
		t.Errorf("it went %v", w.host.Effects())
	}
	if dev, fork := w.find("dev"), w.find("copy"); dev.State != vm.Stopped || fork.State != vm.Running {
		t.Errorf("dev is %s and the fork %s", dev.State, fork.State)
	}
}
