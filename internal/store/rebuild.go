package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Rebuilt tells of a database that was made anew.
type Rebuilt struct {
	Why      string    // what was wrong with the one before
	SetAside []string  // where it is now, with its companions; none when it was missing
	VMs      int       // that were taken in
	Left     []error   // why other VM directories were not
	At       time.Time // when
}

// OpenOrRebuild opens the database in dir. One that is damaged, or is missing though VMs are there, is set
// aside and made anew of what the VMs' directories, below vms, say of themselves. Then Rebuilt is not nil.
// What only the database knew is lost: the history of operations and events.
//
// A database of a newer schema stays untouched, as with Open.
func OpenOrRebuild(ctx context.Context, dir, vms string) (*Store, *Rebuilt, error) {
	why := ""
	if _, err := os.Lstat(filepath.Join(dir, File)); errors.Is(err, fs.ErrNotExist) {
		found, err := filepath.Glob(filepath.Join(vms, "*", FileVM))
		if err != nil {
			return nil, nil, err
		}
		if len(found) > 0 {
			why = "it is missing"
		}
	}
	if why == "" {
		s, err := Open(ctx, dir)
		if !fault.Is(err, fault.Corrupt) {
			return s, nil, err
		}
		why = fault.From(err).Msg
	}
	r, err := rebuild(ctx, dir, vms)
	if err != nil {
		return nil, nil, fault.From(err).InOp("rebuild database", filepath.Join(dir, File))
	}
	r.Why = why
	s, err := Open(ctx, dir)
	return s, r, err
}

// rebuild makes the new database elsewhere and puts it in place whole: one that is cut short is begun again.
func rebuild(ctx context.Context, dir, vms string) (*Rebuilt, error) {
	r := &Rebuilt{At: time.Now()}
	found, left := describe(vms)
	r.Left = left
	scratch := filepath.Join(dir, "rebuild.tmp")
	if err := os.RemoveAll(scratch); err != nil {
		return nil, err
	}
	s, err := Open(ctx, scratch)
	if err != nil {
		return nil, err
	}
	err = s.takeIn(ctx, found, r)
	if err = errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	if r.SetAside, err = setAside(filepath.Join(dir, File), r.At); err != nil {
		return nil, err
	}
	if err := settle(filepath.Join(scratch, File), filepath.Join(dir, File)); err != nil {
		return nil, err
	}
	return r, os.RemoveAll(scratch)
}

// describe reads every VM's description, the latest first.
func describe(vms string) (found []vm.VM, left []error) {
	entries, err := os.ReadDir(vms)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		left = append(left, fault.System(err, "read", vms))
	}
	for _, e := range entries {
		v, err := ReadVM(filepath.Join(vms, e.Name()))
		if err != nil {
			left = append(left, err)
			continue
		}
		found = append(found, v)
	}
	slices.SortStableFunc(found, func(a, b vm.VM) int { return cmp.Compare(b.Changed.UnixNano(), a.Changed.UnixNano()) })
	return found, left
}

// takeIn inserts VMs, and what can be told from them of the instance.
func (s *Store) takeIn(ctx context.Context, found []vm.VM, r *Rebuilt) error {
	return s.commit(ctx, func(tx *sql.Tx) error {
		names, addresses := map[string]vm.ID{}, map[any]vm.ID{}
		for _, v := range found {
			other, clash := names[v.Name]
			if at := leased(v); !clash && at != nil {
				other, clash = addresses[at]
			}
			if clash {
				r.Left = append(r.Left, fault.New(fault.AlreadyExists, "the VM %s has its name or its address", other).WithOp("take in VM", string(v.ID)+" ("+v.Name+")").
					WithHint("run `banger repair adopt %s --name NEW`", v.ID))
				continue
			}
			names[v.Name], addresses[leased(v)] = v.ID, v.ID
			delete(addresses, nil)
			if err := insertVM(ctx, tx, settled(v, r.At)); err != nil {
				return err
			}
			r.VMs++
		}
		if err := sign(ctx, tx, found); err != nil {
			return err
		}
		// Whoever follows events knows ids of the database before. None was larger than this: there were not
		// as many events as seconds since 1970.
		_, err := tx.ExecContext(ctx, "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", r.At.Unix())
		return err
	})
}

// settled is a VM as it is taken in. What was being made or deleted when it was described is kept: whether
// that had ended, nobody knows any more.
func settled(v vm.VM, now time.Time) vm.VM {
	switch v.State {
	case vm.Creating:
		v.State, v.Desired, v.Reason = vm.Stopped, vm.Stopped, "the database was lost while it was created"
	case vm.Deleting:
		if v.Deleted.IsZero() {
			v.Deleted = now // so that it goes to the trash
		}
	case vm.Starting, vm.Running, vm.Paused, vm.Stopping, vm.Stopped, vm.Crashed, vm.Restoring:
	}
	return v
}

// sign gives the database the instance's tag and its subnets again, which the VMs' devices and addresses bear.
func sign(ctx context.Context, tx *sql.Tx, found []vm.VM) error {
	for _, v := range found {
		tag, _, ok := vm.BridgeOf(v.Lease.Bridge)
		if !ok || !v.Lease.Address.IsValid() {
			continue
		}
		meta := map[string]string{"tag": string(tag), "subnet": v.Lease.Address.Masked().String()}
		if a := v.Lease.Address6; a.IsValid() {
			meta["ula"] = netip.PrefixFrom(a.Addr(), 48).Masked().String()
		}
		for key, value := range meta {
			_, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
			if err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// setAside renames a database and its companions, and returns their new paths.
func setAside(path string, now time.Time) ([]string, error) {
	var moved []string
	// The database first: without its -wal it could pass for whole, while a -wal alone is found out.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		to := path + ".damaged-" + now.UTC().Format("20060102T150405Z") + suffix
		if err := os.Rename(path+suffix, to); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return moved, err
		}
		moved = append(moved, to)
	}
	return moved, nil
}
