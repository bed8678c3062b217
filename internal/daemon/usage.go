package daemon

import (
	"context"

	"banger/internal/host/block"
	"banger/internal/op"
	"banger/internal/snapdir"
	"banger/internal/usage"
	"banger/internal/vm"
)

// keeper keeps the accounts of this daemon's state directory.
func (d *Daemon) keeper() *usage.Keeper {
	return &usage.Keeper{Layout: d.layout, Files: block.Tree{}, Initrds: d.kernels, Snapshots: snapdir.Dirs{}, Machines: machines{d}, Images: d.images}
}

// machines are everybody's VMs.
type machines struct{ *Daemon }

func (m machines) VMs(ctx context.Context) ([]vm.VM, error) { return m.store.VMs(ctx) }

func (m machines) Trash() []vm.VM {
	var all []vm.VM
	for _, t := range m.manager.Trash(vm.Caller{}) {
		all = append(all, t.VM)
	}
	return all
}

func (m machines) Destroy(ctx context.Context, id vm.ID) error {
	o, err := m.manager.Destroy(vm.Caller{}, string(id))
	if err != nil {
		return err
	}
	last := o
	if err := m.tracker.Follow(ctx, o.ID, func(now op.Operation) error { last = now; return nil }); err != nil {
		return err
	}
	if last.Error != nil {
		return last.Error
	}
	return nil
}
