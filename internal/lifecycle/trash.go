package lifecycle

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/vm"
)

// Trashed is a VM in the trash.
type Trashed struct {
	vm.VM
	Expires time.Time // when the grace period ends
}

// Trash returns the VMs in the trash that the caller may see, those deleted last first. The trash is what the
// directories in it say: it needs no row, so a lost database loses nothing of it.
func (m *Manager) Trash(caller vm.Caller) []Trashed {
	var seen []Trashed
	for _, v := range m.trashed() {
		if caller.Sees(v.Owner) {
			seen = append(seen, Trashed{v, v.Deleted.Add(m.TrashGrace)})
		}
	}
	return seen
}

// trashed is the whole trash, what was deleted last first.
func (m *Manager) trashed() []vm.VM {
	all, err := m.dirs.Trashed()
	if err != nil {
		m.log.Error("read trash; what cannot be read stays there", "error", err)
	}
	slices.SortStableFunc(all, func(a, b vm.VM) int { return b.Deleted.Compare(a.Deleted) })
	return all
}

// findTrashed returns what the selector names in the trash, which may hold several VMs of one name.
func (m *Manager) findTrashed(caller vm.Caller, selector string) (vm.VM, error) {
	var seen []vm.VM
	var named []string
	for _, v := range m.trashed() {
		if !caller.Sees(v.Owner) {
			continue
		}
		seen = append(seen, v)
		if v.Name == selector {
			named = append(named, string(v.ID))
		}
	}
	if len(named) > 1 {
		return vm.VM{}, fault.New(fault.Ambiguous, "the trash holds %d VMs of this name: %s", len(named), strings.Join(named, ", ")).
			WithOp("find VM in the trash", selector).WithHint("give the id; `banger vm trash list` tells when each was deleted")
	}
	v, err := vm.Select(seen, selector)
	if f := fault.From(err); err != nil && f.Code == fault.NotFound {
		err = fault.New(fault.NotFound, "nothing in the trash has this name or id").WithOp("find VM in the trash", selector).
			WithHint("run `banger vm trash list`")
	}
	return v, err
}

// Restore takes a VM back out of the trash, stopped, under its name or another. It keeps its address where that is
// still free.
func (m *Manager) Restore(ctx context.Context, caller vm.Caller, selector, name string) (op.Operation, error) {
	v, err := m.findTrashed(caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	return m.bringBack(ctx, caller, KindRestore, v, name, func() error { return m.dirs.Discard(v.ID) })
}

// bringBack stores a VM of which there is only the directory, under its name or another, and makes it whole: stopped,
// or running where its hypervisor lives. undo puts the directory back to where it was.
func (m *Manager) bringBack(ctx context.Context, caller vm.Caller, kind string, v vm.VM, name string, undo func() error) (op.Operation, error) {
	what := Words(kind)
	if name != "" {
		if err := vm.CheckName(name); err != nil {
			return op.Operation{}, err
		}
		v.Name = name
	}
	alive := v.Process != nil && m.hyper.Alive(*v.Process)
	if !alive {
		v.State, v.Desired, v.Reason = vm.Restoring, vm.Stopped, ""
		v.Rests()
	}
	unlock, err := m.locks.lock(ctx, v.ID)
	if err != nil {
		return op.Operation{}, err
	}
	begun := false
	defer func() {
		if !begun {
			unlock()
		}
	}()
	m.admitting.Lock()
	defer m.admitting.Unlock()
	if err := m.admitBack(ctx, v); err != nil {
		return op.Operation{}, fault.From(err).InOp(what, v.Name)
	}
	o := newOperation(kind, v, caller.UID)
	leased, err := m.store.Create(ctx, v, m.pickAgain(v), func(leased vm.VM) []vm.Record {
		if alive {
			return m.records(leased)
		}
		return lasting(m.records(leased)) // what a start holds is held by the start
	}, o)
	if err != nil {
		f := fault.From(err).WithOp(what, v.Name)
		if f.Code == fault.AlreadyExists {
			f = f.WithHint("give it another with --name")
		}
		return op.Operation{}, f
	}
	v, begun = leased, true
	return m.spawnHolding(o, v.ID, unlock, func(ctx context.Context, job *op.Job) error {
		back := step{"directory", func(ctx context.Context, _ feature.Report) error { return m.finishRestore(ctx, v, job) }}
		if alive {
			back = step{"hypervisor", func(ctx context.Context, _ feature.Report) error {
				if err := m.reattach(ctx, v); err != nil {
					return err
				}
				return m.commit(ctx, vm.Change{VM: v, Op: ending(job)})
			}}
		}
		err := run(ctx, job, group{back})
		if err == nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), undoBudget)
		defer cancel()
		err = fault.From(err).InOp(what, v.Name)
		m.release(v.ID)
		undone := undo()
		if undone == nil {
			undone = m.store.Commit(ctx, vm.Change{VM: v, Remove: true, Op: m.failed(job, err)})
		}
		if undone != nil {
			m.log.Error("undo "+what, "vm", v.Name, "id", v.ID, "error", undone)
		}
		return err
	}), nil
}

// finishRestore moves the directory and commits that the VM is whole. A VM without a directory in either place
// leaves the store again: there is nothing of it.
func (m *Manager) finishRestore(ctx context.Context, v vm.VM, job *op.Job) error {
	var o *op.Operation
	if job != nil {
		o = ending(job)
	}
	if err := m.dirs.Restore(v.ID); errors.Is(err, fs.ErrNotExist) && job == nil {
		return m.store.Commit(ctx, vm.Change{VM: v, Remove: true})
	} else if err != nil {
		return err
	}
	v.State, v.Deleted = vm.Stopped, time.Time{}
	return m.commit(ctx, vm.Change{VM: v, Op: o})
}

// lasting keeps the records of what lives as long as the VM.
func lasting(records []vm.Record) []vm.Record {
	return slices.DeleteFunc(records, func(r vm.Record) bool { return r.Until != vm.UntilDelete })
}

// Destroy removes a VM from the trash, and with it its disks.
func (m *Manager) Destroy(caller vm.Caller, selector string) (op.Operation, error) {
	v, err := m.findTrashed(caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	return m.destroy(v, caller.UID), nil
}

func (m *Manager) destroy(v vm.VM, owner int) op.Operation {
	return m.spawn(newOperation(KindDestroy, v, owner), v.ID, func(ctx context.Context, job *op.Job) error {
		if _, err := m.findTrashed(vm.Caller{}, string(v.ID)); err != nil {
			return err // it was restored meanwhile
		}
		err := run(ctx, job, group{{"disks", func(context.Context, feature.Report) error { return m.dirs.Destroy(v.ID) }}})
		if err != nil {
			return fault.From(err).InOp("empty trash of VM", v.Name)
		}
		m.locks.forget(v.ID)
		return m.store.SaveOperation(ctx, *ending(job))
	})
}

// sweepInterval is how often the trash is looked through.
const sweepInterval = time.Hour

// sweep destroys what has been in the trash for long enough, now and from time to time.
func (m *Manager) sweep() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		m.SweepTrash()
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// SweepTrash begins to destroy what has been in the trash for longer than the grace period.
func (m *Manager) SweepTrash() {
	for _, v := range m.trashed() {
		if !v.Deleted.IsZero() && time.Since(v.Deleted) > m.TrashGrace {
			m.log.Info("trash: the grace period is over", "vm", v.Name, "id", v.ID, "deleted", v.Deleted)
			m.destroy(v, v.Owner)
		}
	}
}

// EmptyOldest destroys what was deleted first, because the disk is short of space. It reports whether there was
// anything.
func (m *Manager) EmptyOldest(ctx context.Context) (bool, error) {
	all := m.trashed()
	if len(all) == 0 {
		return false, nil
	}
	v := all[len(all)-1]
	m.log.Warn("trash: the disk is short of space, so this goes before its time", "vm", v.Name, "id", v.ID, "deleted", v.Deleted)
	o := m.destroy(v, v.Owner)
	var last op.Operation
	if err := m.Tracker.Follow(ctx, o.ID, func(now op.Operation) error { last = now; return nil }); err != nil {
		return true, err
	}
	if last.Error != nil {
		return true, last.Error
	}
	return true, nil
}
