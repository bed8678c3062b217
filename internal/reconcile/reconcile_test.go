package reconcile_test

import (
	"slices"
	"testing"

	"banger/internal/reconcile"
	"banger/internal/vm"
)

const (
	tag   vm.Tag = "ab12"
	id    vm.ID  = "0123456789ab"
	other vm.ID  = "ba9876543210"
)

func kinds(all []reconcile.Finding) (out []reconcile.Kind) {
	for _, f := range all {
		out = append(out, f.Kind)
	}
	return out
}

func TestOf(t *testing.T) {
	whole := reconcile.Facts{Recorded: true, Directory: true, Described: true}
	held := func(f reconcile.Facts) reconcile.Facts { f.Held, f.Alive = true, true; return f }
	alive := func(f reconcile.Facts) reconcile.Facts { f.Alive = true; return f }
	as := func(f reconcile.Facts, s vm.State) reconcile.Facts {
		f.VM = vm.VM{ID: id, Name: "dev", State: s, Process: &vm.Process{PID: 7}}
		return f
	}
	bare := whole
	bare.Recorded = false
	stale := whole
	stale.Described = false
	gone := stale
	gone.Directory = false
	for _, c := range []struct {
		name string
		f    reconcile.Facts
		want []reconcile.Kind
	}{
		{"stopped", as(whole, vm.Stopped), nil},
		{"crashed", as(whole, vm.Crashed), nil},
		{"running", as(held(whole), vm.Running), nil},
		{"paused", as(held(whole), vm.Paused), nil},
		{"creating", as(whole, vm.Creating), []reconcile.Kind{reconcile.Interrupted}},
		{"deleting without a directory", as(gone, vm.Deleting), []reconcile.Kind{reconcile.Interrupted}},
		{"restoring without a directory", as(gone, vm.Restoring), []reconcile.Kind{reconcile.Interrupted}},
		{"starting", as(stale, vm.Starting), []reconcile.Kind{reconcile.Interrupted}},
		{"stopping, and still there", as(held(whole), vm.Stopping), []reconcile.Kind{reconcile.Interrupted}},
		{"stopping, not held", as(alive(whole), vm.Stopping), []reconcile.Kind{reconcile.Unheld}},
		{"running, not held", as(alive(stale), vm.Running), []reconcile.Kind{reconcile.Unheld}},
		{"running, ended", as(whole, vm.Running), []reconcile.Kind{reconcile.Ended}},
		{"paused, ended", as(whole, vm.Paused), []reconcile.Kind{reconcile.Ended}},
		{"of a new database", as(alive(bare), vm.Running), []reconcile.Kind{reconcile.Unrecorded, reconcile.Unheld}},
		{"an old vm.json", as(stale, vm.Stopped), []reconcile.Kind{reconcile.Undescribed}},
		{"no directory", as(held(gone), vm.Running), []reconcile.Kind{reconcile.Lost}},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := reconcile.Of(c.f)
			if got := kinds(all); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			for _, f := range all {
				if f.What == "" || f.Proof == "" || f.Repair == "" && f.Hint == "" {
					t.Errorf("it does not say enough: %+v", f)
				}
			}
		})
	}
}

func TestStrays(t *testing.T) {
	process := func(id vm.ID) vm.Record {
		return vm.Record{VM: id, Kind: vm.RecordProcess, Name: string(tag) + "/" + string(id)}
	}
	tap := func(id vm.ID) vm.Record { return vm.Record{Kind: vm.RecordTAP, Name: id.TAP(tag)} }
	w := reconcile.World{
		Tag:     tag,
		VMs:     []vm.VM{{ID: id, Name: "dev"}},
		Records: []vm.Record{process(id), {VM: id, Kind: vm.RecordTAP, Name: id.TAP(tag)}},
		Objects: []vm.Record{process(id), tap(id)},
		Dirs:    []reconcile.Dir{{ID: id, Path: "/vms/" + string(id)}},
	}
	if all := w.Strays(); len(all) > 0 {
		t.Errorf("of a host in order: %+v", all)
	}

	w.Objects = append(w.Objects, process(other), tap(other))
	if got := kinds(w.Strays()); !slices.Equal(got, []reconcile.Kind{reconcile.Orphan, reconcile.Orphan}) {
		t.Errorf("what nobody holds: %v", got)
	}

	// What a VM holds no more is nobody's, though the VM is there.
	down := w
	down.Records, down.Objects = nil, []vm.Record{tap(id)}
	if got := kinds(down.Strays()); !slices.Equal(got, []reconcile.Kind{reconcile.Orphan}) {
		t.Errorf("of a VM that is down: %v", got)
	}

	// The VM of an unknown directory may run.
	w.Dirs = append(w.Dirs, reconcile.Dir{ID: other, Path: "/vms/" + string(other), Name: "found", Owner: 1000}, reconcile.Dir{ID: "notes", Path: "/vms/notes", Why: "no vm.json"})
	all := w.Strays()
	if got := kinds(all); !slices.Equal(got, []reconcile.Kind{reconcile.Unknown, reconcile.Unknown}) {
		t.Fatalf("with unknown directories: %+v", all)
	}
	for _, f := range all {
		if f.Repair != "" || f.Hint == "" {
			t.Errorf("something is done to a directory: %+v", f)
		}
	}
	if all[0].VM != "" || all[1].VM != other || all[1].Name != "found" || all[1].Owner != 1000 {
		t.Errorf("got %+v", all)
	}
}
