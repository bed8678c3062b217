package store_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"banger/internal/fault"
	"banger/internal/store"
	"banger/internal/vm"
)

// rests holds what a picker is told is taken and rests, by the addresses' last numbers.
func rests(t *testing.T, s *store.Store, want string) {
	t.Helper()
	told := ""
	no := errors.New("none is wanted")
	_, err := s.Create(t.Context(), machine("asks"), func(taken, resting []netip.Addr) (vm.Lease, error) {
		told = fmt.Sprint(hosts(taken), hosts(resting))
		return vm.Lease{}, no
	}, hold, operation("vm.create"))
	if err == nil || told != want {
		t.Errorf("taken and resting are %s, want %s; %v", told, want, err)
	}
}

func hosts(addrs []netip.Addr) (out []int) {
	for _, a := range addrs {
		out = append(out, int(a.As4()[3]))
	}
	return out
}

// TestAddressesRest from when a VM gives them up: by leaving, and by taking another.
func TestAddressesRest(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := create(t, s, "a"), create(t, s, "b"), create(t, s, "c")
	rests(t, s, "[1 2 3] []")
	for _, v := range []vm.VM{b, a, a} { // once more is nothing
		if err := s.Commit(t.Context(), vm.Change{VM: v, Remove: true}); err != nil {
			t.Fatal(err)
		}
	}
	rests(t, s, "[3] [2 1]")
	c.State = vm.Starting
	begun := operation("vm.start")
	moved, err := s.Relet(t.Context(), vm.Change{VM: c, Op: &begun}, func(taken, resting []netip.Addr) (vm.Lease, error) {
		if told := fmt.Sprint(hosts(taken), hosts(resting)); told != "[] [2 1]" { // its own is free to it
			t.Errorf("told %s", told)
		}
		return b.Lease, nil
	})
	if err != nil || moved.Lease != b.Lease {
		t.Fatalf("%+v, %v", moved, err)
	}
	if all, err := s.VMs(t.Context()); err != nil || len(all) != 1 || all[0].Lease != b.Lease || all[0].State != vm.Starting {
		t.Errorf("stored is %+v, %v", all, err)
	}
	rests(t, s, "[2] [1 3]")
	closed(t, s)
	s = open(t, dir)
	rests(t, s, "[2] [1 3]")
	if records, err := s.Records(t.Context(), c.ID); err != nil || len(records) != len(hold(c)) {
		t.Errorf("it holds %v, %v", records, err)
	}

	// One has rested for long enough.
	db := database(t, dir)
	if _, err := db.ExecContext(t.Context(), "UPDATE released SET at = at - 600 * 1000000000 WHERE address = '10.9.8.1'"); err != nil {
		t.Fatal(err)
	}
	closed(t, db)
	rests(t, s, "[2] [3]")
}

// TestAVMThatIsGoneGetsNoLease and a lease that another has is nobody else's.
func TestAVMThatIsGoneGetsNoLease(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := create(t, s, "a"), create(t, s, "b")
	if _, err := s.Relet(t.Context(), vm.Change{VM: a}, func(_, _ []netip.Addr) (vm.Lease, error) { return b.Lease, nil }); err == nil {
		t.Error("two have one address")
	}
	if _, err := s.Relet(t.Context(), vm.Change{VM: machine("gone")}, pick); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
	all, err := s.VMs(t.Context())
	if err != nil || !slices.EqualFunc(all, []vm.VM{a, b}, func(x, y vm.VM) bool { return x.Lease == y.Lease }) {
		t.Errorf("stored is %+v, %v", all, err)
	}
	rests(t, s, "[1 2] []")
}
