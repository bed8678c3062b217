package event_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/op"
	"banger/internal/vm"
)

func TestOfChange(t *testing.T) {
	before := vm.VM{ID: "0123456789ab", Name: "dev", Owner: 1000, State: vm.Crashed, Reason: "it panicked"}
	for _, c := range []struct {
		name   string
		change func(*vm.VM)
		want   string
	}{
		{"nothing", func(*vm.VM) {}, ""},
		{"its process", func(v *vm.VM) { v.Process = &vm.Process{PID: 7} }, ""},
		{"an old reason is not this state's", func(v *vm.VM) { v.State = vm.Starting }, "vm.starting dev"},
		{"a new reason is", func(v *vm.VM) { v.State, v.Reason = vm.Stopped, "powered off" }, "vm.stopped dev powered off"},
		{"it ails", func(v *vm.VM) { v.Reason = "its root overlay is lost" }, ""},
		{"all at once", func(v *vm.VM) {
			v.Name, v.Labels, v.Spec.VCPU, v.State, v.Reason = "prod", map[string]string{"a": "b"}, 4, vm.Running, ""
		}, "vm.renamed prod was dev, vm.set prod [labels vcpu], vm.running prod"},
	} {
		after := before
		c.change(&after)
		var got []string
		for _, e := range event.OfChange(before, after) {
			if e.VM != before.ID || e.Owner != 1000 {
				t.Errorf("%s: %+v", c.name, e)
			}
			text := strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.Name, e.Reason))
			if e.Was != "" {
				text += " was " + e.Was
			}
			if e.Changed != nil {
				text += fmt.Sprint(" ", e.Changed)
			}
			got = append(got, text)
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: told %q, want %q", c.name, text, c.want)
		}
	}
}

// TestAnAilmentIsTold tells once of a VM that runs on though something of it is lost.
func TestAnAilmentIsTold(t *testing.T) {
	before := vm.VM{ID: "0123456789ab", Name: "dev", Owner: 1000, State: vm.Running}
	after := before
	after.Reason = "its root overlay is lost"
	told := event.OfChange(before, after)
	if len(told) != 1 || told[0].Kind != event.VMAils || told[0].Reason != after.Reason || told[0].State != "" {
		t.Errorf("told %+v", told)
	}
	if again := event.OfChange(after, after); len(again) != 0 {
		t.Errorf("told again %+v", again)
	}
}

// TestEveryWishIsTold holds wishes to the fields of a spec.
func TestEveryWishIsTold(t *testing.T) {
	spec := reflect.TypeFor[vm.Spec]()
	for i := range spec.NumField() {
		name, _, _ := strings.Cut(spec.Field(i).Tag.Get("json"), ",")
		var after vm.VM
		reflect.ValueOf(&after.Spec).Elem().Field(i).SetInt(7)
		news := event.OfChange(vm.VM{}, after)
		if len(news) != 1 || !slices.Equal(news[0].Changed, []string{name}) {
			t.Errorf("a change of %s is told as %+v", name, news)
		}
	}
}

func TestOfArrival(t *testing.T) {
	for state, want := range map[vm.State]event.Kind{vm.Creating: event.VMCreated, vm.Stopped: event.VMRestored} {
		e := event.OfArrival(vm.VM{ID: "0123456789ab", Name: "dev", Owner: 1000, State: state})
		if e.Kind != want || e.State != state || e.Name != "dev" || e.Owner != 1000 {
			t.Errorf("one that arrives %s is told as %+v", state, e)
		}
	}
}

func TestOfOperation(t *testing.T) {
	running := op.Operation{ID: "op-1", Kind: "vm.start", Subject: "0123456789ab", Name: "dev", Owner: 1000, State: op.Underway}
	ended := running.Finished(fault.New(fault.Timeout, "too slow").WithOp("start VM", "dev"))
	for _, c := range []struct {
		before op.State
		o      op.Operation
		want   []string
	}{
		{"", running, []string{"operation.began running"}},
		{op.Underway, running, nil},
		{op.Underway, ended, []string{`operation.ended failed start VM "dev": too slow`}},
		{op.Failed, ended, nil},
		{op.Done, ended, []string{`operation.ended failed start VM "dev": too slow`}},
		{"", ended, []string{"operation.began running", `operation.ended failed start VM "dev": too slow`}},
	} {
		var got []string
		for _, e := range event.OfOperation(c.before, c.o) {
			if e.VM != "0123456789ab" || e.Name != "dev" || e.Owner != 1000 || e.Operation.ID != "op-1" {
				t.Errorf("%+v", e)
			}
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.Operation.State, e.Reason)))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%q: %s", c.before, d)
		}
	}
	if pulled := event.OfOperation("", op.Operation{Kind: "image.pull", Subject: "debian:12", State: op.Underway}); pulled[0].VM != "" {
		t.Errorf("an image is no VM: %+v", pulled)
	}
}

func TestSeenBy(t *testing.T) {
	root, owner, other, nobody := vm.Caller{}, vm.Caller{UID: 1000}, vm.Caller{UID: 1001}, vm.Caller{UID: -1}
	his, all := event.Event{Owner: 1000}, event.OfDaemon(event.DaemonStarted, "")
	for _, c := range []struct {
		e    event.Event
		by   vm.Caller
		want bool
	}{
		{his, root, true},
		{his, owner, true},
		{his, other, false},
		{his, nobody, false},
		{all, root, true},
		{all, owner, true},
		{all, other, true},
	} {
		if got := c.e.SeenBy(c.by); got != c.want {
			t.Errorf("%+v seen by %d: %v", c.e, c.by.UID, got)
		}
	}
}
