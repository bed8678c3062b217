package lifecycle

import (
	"context"
	"time"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/vm"
)

// DeleteRequest says how a VM is deleted.
type DeleteRequest struct {
	Force bool // also when it is running
	Now   bool // not to the trash: its disks are gone at once
}

// Delete takes a VM's devices, name and address, and puts its directory with both disks in the trash.
func (m *Manager) Delete(ctx context.Context, caller vm.Caller, selector string, r DeleteRequest) (op.Operation, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	if err := deletable(v, r.Force); err != nil {
		return op.Operation{}, err
	}
	return m.spawn(newOperation(KindDelete, v, caller.UID), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil {
			return err
		}
		if err := deletable(v, r.Force); err != nil {
			return err
		}
		if err := m.guard(ctx, v); err != nil {
			return err
		}
		v.State, v.Desired = vm.Deleting, vm.Deleting
		if !r.Now {
			v.Deleted = time.Now()
		}
		o := job.Snapshot()
		if err := m.commit(ctx, vm.Change{VM: v, Op: &o}); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBudget)
		defer cancel()
		return run(ctx, job, group{{"removal", func(ctx context.Context, _ feature.Report) error { return m.erase(ctx, v, ending(job)) }}})
	}), nil
}

func deletable(v vm.VM, force bool) error {
	if force || v.State == vm.Stopped || v.State == vm.Crashed || v.State == vm.Deleting {
		return nil
	}
	return fault.New(fault.WrongState, "it is %s", v.State).WithOp("delete VM", v.Name).
		WithHint("stop it first with `banger vm stop %s`, or delete it running with --force", v.Name)
}
