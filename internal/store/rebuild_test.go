package store_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/store"
	"banger/internal/vm"
)

// TestRebuild loses the database in each way, and gets every VM back from its own description.
func TestRebuild(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, string){
		"missing": func(t *testing.T, path string) { remove(t, path, path+"-wal", path+"-shm") },
		"without its wal": func(t *testing.T, path string) {
			remove(t, path, path+"-shm")
			write(t, path+"-wal", "left")
		},
		"empty":   func(t *testing.T, path string) { write(t, path, "") },
		"garbage": func(t *testing.T, path string) { write(t, path, strings.Repeat("garbage ", 4096)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			vms := filepath.Join(dir, "vms")
			s, r, err := store.OpenOrRebuild(t.Context(), dir, vms)
			if err != nil || r != nil {
				t.Fatal(r, err)
			}
			tag := s.Tag()
			running := described(t, vms, tag, "running", 2, vm.Running)
			described(t, vms, tag, "making", 3, vm.Creating)
			described(t, vms, tag, "going", 4, vm.Deleting)
			old := described(t, vms, tag, "running", 5, vm.Stopped) // a name that is another's by now
			if err := os.MkdirAll(filepath.Join(vms, "0123456789ab"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			lose(t, filepath.Join(dir, store.File))

			s, r, err = store.OpenOrRebuild(t.Context(), dir, vms)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			if r == nil || r.VMs != 3 || len(r.Left) != 2 || r.Why == "" {
				t.Fatalf("%+v", r)
			}
			if name != "missing" && len(r.SetAside) == 0 {
				t.Error("nothing was set aside")
			}
			if text := r.Left[0].Error() + "\n" + r.Left[1].Error(); !strings.Contains(text, string(old)) || !strings.Contains(text, "0123456789ab") {
				t.Errorf("left: %s", text)
			}
			if s.Tag() != tag {
				t.Errorf("the tag was %s and is %s: the VMs' devices would be strangers", tag, s.Tag())
			}
			if p, chosen, err := s.Subnet(t.Context()); err != nil || !chosen || p.String() != "10.223.0.0/24" {
				t.Errorf("subnet %v %v %v", p, chosen, err)
			}
			if p, chosen, err := s.ULA(t.Context()); err != nil || !chosen || p.String() != "fd01:203:405::/48" {
				t.Errorf("IPv6 subnet %v %v %v", p, chosen, err)
			}
			all, err := s.VMs(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range all {
				switch v.Name {
				case "running":
					if v.ID != running || v.State != vm.Running || v.Process == nil {
						t.Errorf("%+v", v)
					}
				case "making":
					if v.State != vm.Stopped || v.Reason == "" {
						t.Errorf("%+v", v)
					}
				case "going":
					if v.State != vm.Deleting || v.Deleted.IsZero() {
						t.Errorf("%+v", v)
					}
				}
			}
			if _, again, err := reopen(t, s, dir, vms); err != nil || again != nil {
				t.Errorf("what was rebuilt is rebuilt again: %v %v", again, err)
			}
		})
	}
}

func reopen(t *testing.T, s *store.Store, dir, vms string) (*store.Store, *store.Rebuilt, error) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, r, err := store.OpenOrRebuild(context.WithoutCancel(t.Context()), dir, vms)
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, r, err
}

// TestANewerDatabaseIsNotRebuilt holds that what a newer banger wrote is refused, not set aside.
func TestANewerDatabaseIsNotRebuilt(t *testing.T) {
	dir := crashed(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)")
	described(t, filepath.Join(dir, "vms"), "ab12", "dev", 2, vm.Stopped)
	before, err := os.ReadFile(filepath.Join(dir, store.File))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.OpenOrRebuild(t.Context(), dir, filepath.Join(dir, "vms")); !fault.Is(err, fault.Incompatible) {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, store.File)); err != nil || string(after) != string(before) {
		t.Errorf("it was touched: %v", err)
	}
}

// described makes the directory of a VM, and returns its id.
func described(t *testing.T, vms string, tag vm.Tag, name string, host byte, state vm.State) vm.ID {
	t.Helper()
	v := machine(name)
	v.State, v.Lease.Bridge = state, tag.Bridge(0)
	v.Lease.Address = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 223, 0, host}), 24)
	v.Lease.Address6 = netip.MustParsePrefix("fd01:203:405::adf:2/64")
	v.Changed = time.Unix(2_000_000_000-int64(host), 0)
	if state == vm.Running {
		v.Process = &vm.Process{PID: 1, StartTime: 1, BootID: "b"}
	}
	dir := filepath.Join(vms, string(v.ID))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := store.WriteVM(dir, v); err != nil {
		t.Fatal(err)
	}
	return v.ID
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}
