package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/store"
	"banger/internal/vm"
)

// The verbs see the store through this port.
var _ lifecycle.Store = (*store.Store)(nil)

// machine drafts a VM that nobody has stored yet.
func machine(name string) vm.VM {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return vm.VM{
		ID: vm.NewID(), Name: name, Owner: 1000, Arch: "amd64", Image: vm.ImageRef{ID: "fedcba987654", Name: "debian:12"},
		Desired: vm.Running, State: vm.Creating, Created: at, Changed: at,
	}
}

// pick gives the lowest free address of a tiny subnet.
func pick(taken, _ []netip.Addr) (vm.Lease, error) {
	subnet := netip.MustParsePrefix("10.9.8.0/24")
	for a := subnet.Addr().Next(); subnet.Contains(a); a = a.Next() {
		if !slices.Contains(taken, a) {
			return vm.Lease{Address: netip.PrefixFrom(a, 24)}, nil
		}
	}
	return vm.Lease{}, fault.New(fault.Exhausted, "none is left")
}

// hold is a record until delete and one until stop, of names that no other VM has.
func hold(v vm.VM) []vm.Record {
	return []vm.Record{
		{VM: v.ID, Kind: vm.RecordDir, Name: string(v.ID), Until: vm.UntilDelete},
		{VM: v.ID, Kind: vm.RecordTAP, Name: v.ID.TAP("1f2e"), Until: vm.UntilStop},
	}
}

func operation(kind string) op.Operation {
	return op.Operation{ID: op.NewID(), Kind: kind, Owner: 1000, State: op.Underway, Created: time.Now().UTC()}
}

func create(t *testing.T, s *store.Store, name string) vm.VM {
	t.Helper()
	v, err := s.Create(t.Context(), machine(name), pick, hold, operation("vm.create"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func commit(t *testing.T, s *store.Store, c vm.Change) {
	t.Helper()
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// holds checks the whole of what is stored about VMs.
func holds(t *testing.T, s *store.Store, vms []vm.VM, records []vm.Record) {
	t.Helper()
	all, err := s.VMs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(vms, all, byText); d != "" {
		t.Error("VMs:\n" + d)
	}
	got, err := s.Records(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	order := func(a, b vm.Record) int {
		return strings.Compare(string(a.VM)+string(a.Kind)+a.Name, string(b.VM)+string(b.Kind)+b.Name)
	}
	slices.SortFunc(records, order)
	if d := cmp.Diff(records, got); d != "" {
		t.Error("records:\n" + d)
	}
}

func TestCreateStoresAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := create(t, s, "a"), create(t, s, "b")
	if s.Commits() != 2 {
		t.Errorf("%d commits for two creates", s.Commits())
	}
	if a.Lease.Address.String() != "10.9.8.1/24" || b.Lease.Address.String() != "10.9.8.2/24" {
		t.Errorf("leases %v, %v", a.Lease, b.Lease)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	holds(t, s, []vm.VM{a, b}, append(hold(a), hold(b)...))
	if only, err := s.Records(t.Context(), b.ID); err != nil || len(only) != 2 || only[0].VM != b.ID {
		t.Errorf("records of one: %v, %v", only, err)
	}
	if ops, err := s.Operations(t.Context(), 10); err != nil || len(ops) != 2 || ops[0].Kind != "vm.create" {
		t.Errorf("operations: %v, %v", ops, err)
	}
}

func TestCreateThatFailsStoresNothing(t *testing.T) {
	s := open(t, t.TempDir())
	a := create(t, s, "a")
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		v    vm.VM
		pick lifecycle.LeasePicker
		hold func(vm.VM) []vm.Record
		code fault.Code
		want string
	}{
		{"taken name", machine("a"), pick, hold, fault.AlreadyExists, `create VM "a": the name is taken`},
		{"no lease", machine("b"), func(_, _ []netip.Addr) (vm.Lease, error) { return vm.Lease{}, broken }, hold, fault.Internal, "broken"},
		{"a lease that is taken", machine("b"), func(taken, _ []netip.Addr) (vm.Lease, error) {
			return vm.Lease{Address: netip.PrefixFrom(taken[0], 24)}, nil
		}, hold, fault.Internal, "UNIQUE constraint failed: vms.address"},
		{"another's record", machine("b"), pick, func(v vm.VM) []vm.Record {
			return []vm.Record{{VM: v.ID, Kind: vm.RecordTAP, Name: a.ID.TAP("1f2e"), Until: vm.UntilStop}}
		}, fault.InUse, `hold tap "` + a.ID.TAP("1f2e") + `": the VM a holds it`},
		{"an id that exists", func() vm.VM { v := machine("b"); v.ID = a.ID; return v }(), pick, hold, fault.Internal, "UNIQUE constraint failed: vms.id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := s.Create(t.Context(), c.v, c.pick, c.hold, operation("vm.create"))
			if !fault.Is(err, c.code) || !strings.Contains(err.Error(), c.want) || fault.From(err).Hint == "" {
				t.Errorf("got %s %v (hint %q)\nwant %s %s", fault.CodeOf(err), err, fault.From(err).Hint, c.code, c.want)
			}
			holds(t, s, []vm.VM{a}, hold(a))
			if ops, err := s.Operations(t.Context(), 10); err != nil || len(ops) != 1 {
				t.Errorf("operations: %v, %v", ops, err)
			}
		})
	}
}

func TestCreatesOfOneNameThatRace(t *testing.T) {
	s := open(t, t.TempDir())
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.Create(t.Context(), machine("dev"), pick, hold, operation("vm.create")) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !fault.Is(err, fault.AlreadyExists):
			t.Error(err)
		}
	}
	if all, err := s.VMs(t.Context()); won != 1 || err != nil || len(all) != 1 {
		t.Errorf("%d creates won, %d VMs, %v", won, len(all), err)
	}
}

func TestCommit(t *testing.T) {
	s := open(t, t.TempDir())
	v := create(t, s, "a")
	kept := hold(v)[:1]

	v.State, v.Process = vm.Running, &vm.Process{PID: 7, StartTime: 8, BootID: "x"}
	process := vm.Record{VM: v.ID, Kind: vm.RecordProcess, Name: string(v.ID), Until: vm.UntilStop}
	commit(t, s, vm.Change{VM: v, Hold: []vm.Record{process}})
	holds(t, s, []vm.VM{v}, append(hold(v), process))

	// A verb that was cut short is begun again: what it held is held once.
	commit(t, s, vm.Change{VM: v, Hold: []vm.Record{process}})
	holds(t, s, []vm.VM{v}, append(hold(v), process))

	v.State, v.Process = vm.Stopped, nil
	o := operation("vm.stop")
	o.State = op.Done
	before := s.Commits()
	commit(t, s, vm.Change{VM: v, Drop: vm.UntilStop, Op: &o})
	if n := s.Commits() - before; n != 1 {
		t.Errorf("%d commits for one change", n)
	}
	holds(t, s, []vm.VM{v}, kept)
	if got, err := s.Operation(t.Context(), o.ID); err != nil || got.State != op.Done {
		t.Errorf("operation %v, %v", got, err)
	}

	// What leaves and what comes in one change do not get in each other's way.
	commit(t, s, vm.Change{VM: v, Drop: vm.UntilStop, Hold: hold(v)[1:]})
	holds(t, s, []vm.VM{v}, hold(v))
}

func TestRecordOfAnotherVMIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := create(t, s, "a"), create(t, s, "b")
	theirs := hold(a)[1]
	theirs.VM = b.ID
	b.State = vm.Running
	err := s.Commit(t.Context(), vm.Change{VM: b, Hold: []vm.Record{theirs}})
	if !fault.Is(err, fault.InUse) || err.Error() != `hold tap "`+theirs.Name+`": the VM a holds it` {
		t.Errorf("got %v", err)
	}
	b.State = vm.Creating
	holds(t, s, []vm.VM{a, b}, append(hold(a), hold(b)...))
}

func TestRemovedStaysRemoved(t *testing.T) {
	s := open(t, t.TempDir())
	v := create(t, s, "a")
	o := operation("vm.delete")
	commit(t, s, vm.Change{VM: v, Remove: true, Op: &o})
	holds(t, s, nil, nil)

	late := operation("vm.ended")
	err := s.Commit(t.Context(), vm.Change{VM: v, Hold: hold(v), Op: &late})
	if !fault.Is(err, fault.NotFound) || err.Error() != `change VM "a": it is no longer there` || fault.From(err).Hint == "" {
		t.Errorf("got %v", err)
	}
	holds(t, s, nil, nil)
	if _, err := s.Operation(t.Context(), late.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("half of the change was stored: %v", err)
	}

	again := o.Finished(nil)
	commit(t, s, vm.Change{VM: v, Remove: true, Op: &again}) // what is gone already
	if got, err := s.Operation(t.Context(), o.ID); err != nil || got.State != op.Done {
		t.Errorf("operation %v, %v", got, err)
	}
	if b := create(t, s, "a"); b.Lease.Address != v.Lease.Address {
		t.Errorf("name or address stayed taken: %v", b.Lease)
	}
}

func TestOperations(t *testing.T) {
	s := open(t, t.TempDir())
	left, ended := operation("image.pull"), operation("image.import")
	ended.Created = left.Created.Add(time.Second)
	ended = ended.Finished(fault.New(fault.Timeout, "too slow").WithHint("wait"))
	for _, o := range []op.Operation{left, ended} {
		if err := s.SaveOperation(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Operations(t.Context(), 1)
	if err != nil || len(got) != 1 || got[0].ID != ended.ID || got[0].Error.Hint != "wait" {
		t.Errorf("newest: %+v, %v", got, err)
	}
	if err := s.FailInterrupted(t.Context(), strings.ToUpper); err != nil {
		t.Fatal(err)
	}
	o, err := s.Operation(t.Context(), left.ID)
	if err != nil || o.State != op.Failed || o.Error == nil || o.Error.Error() != "IMAGE.PULL: the daemon ended while it ran" {
		t.Errorf("left under way: %+v, %v", o, err)
	}
	if o, err := s.Operation(t.Context(), ended.ID); err != nil || o.Error.Msg != "too slow" {
		t.Errorf("ended before: %+v, %v", o, err)
	}
	_, err = s.Operation(t.Context(), "op-nowhere")
	if !fault.Is(err, fault.NotFound) || err.Error() != `find operation "op-nowhere": no such operation` || fault.From(err).Hint == "" {
		t.Errorf("unknown: %v", err)
	}
}

func TestOldOperationsAreForgotten(t *testing.T) {
	s := open(t, t.TempDir())
	first := operation("vm.create")
	begun := operation("image.pull") // it is under way for as long as all the others take
	begun.Created = first.Created.Add(time.Nanosecond)
	last := begun
	if err := errors.Join(s.SaveOperation(t.Context(), first.Finished(nil)), s.SaveOperation(t.Context(), begun)); err != nil {
		t.Fatal(err)
	}
	for i := range store.KeepOperations {
		last = operation("vm.start")
		last.Created = begun.Created.Add(time.Duration(i+1) * time.Millisecond)
		if err := s.SaveOperation(t.Context(), last.Finished(nil)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Operations(t.Context(), 2*store.KeepOperations)
	if err != nil || len(all) != store.KeepOperations+1 || all[0].ID != last.ID || all[len(all)-1].ID != begun.ID {
		t.Errorf("%d operations, %v", len(all), err)
	}
	if _, err := s.Operation(t.Context(), first.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("the oldest: %v", err)
	}
}

func TestReadersNeitherWaitNorSeeHalfAChange(t *testing.T) {
	s := open(t, t.TempDir())
	v := create(t, s, "a")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var readers sync.WaitGroup
	reads := make([]int, 4)
	for i := range reads {
		readers.Go(func() {
			for ctx.Err() == nil {
				all, err := s.VMs(t.Context())
				if err != nil || len(all) != 1 || all[0].Reason != all[0].Labels["reason"] {
					t.Errorf("read %+v, %v", all, err)
					return
				}
				// A change drops the record and holds another: a reader sees always one of the two.
				if r, err := s.Records(t.Context(), v.ID); err != nil || len(r) != 2 {
					t.Errorf("read %v, %v", r, err)
					return
				}
				reads[i]++
			}
		})
	}
	for i := range 50 {
		v.Reason = fmt.Sprint(i)
		v.Labels = map[string]string{"reason": v.Reason}
		tap := vm.Record{VM: v.ID, Kind: vm.RecordTAP, Name: "tap" + v.Reason, Until: vm.UntilStop}
		commit(t, s, vm.Change{VM: v, Drop: vm.UntilStop, Hold: []vm.Record{tap}})
	}
	stop()
	readers.Wait()
	for i, n := range reads {
		if n == 0 {
			t.Errorf("reader %d never read", i)
		}
	}
}

func TestFullDisk(t *testing.T) {
	s := open(t, t.TempDir())
	v := create(t, s, "a")
	if err := s.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	grown := v
	grown.Reason = strings.Repeat("x", 1<<20)
	err := s.Commit(t.Context(), vm.Change{VM: grown})
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), store.File) || !strings.Contains(err.Error(), "the disk is full") || fault.From(err).Hint == "" {
		t.Errorf("got %v", err)
	}
	v.State = vm.Stopped
	commit(t, s, vm.Change{VM: v}) // a change that needs no room still goes
	holds(t, s, []vm.VM{v}, hold(v))
}

func TestCanceledContextStoresNothing(t *testing.T) {
	s := open(t, t.TempDir())
	v := create(t, s, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	changed := v
	changed.State = vm.Running
	if err := s.Commit(ctx, vm.Change{VM: changed}); !fault.Is(err, fault.Canceled) {
		t.Errorf("got %s %v", fault.CodeOf(err), err)
	}
	holds(t, s, []vm.VM{v}, hold(v))
}
