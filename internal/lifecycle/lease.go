package lifecycle

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"banger/internal/op"
	"banger/internal/vm"
)

// pick completes the lease that the network chose with the VM's device names.
func (m *Manager) pick(id vm.ID) LeasePicker {
	return func(taken, resting []netip.Addr) (vm.Lease, error) {
		l, err := m.Network.Pick(taken, resting)
		return m.onHost(id, l), err
	}
}

// onHost is a lease with the names of this instance's devices. A description may name others, as that of a VM whose
// directory is another instance's does: those are not ours to make or to remove.
func (m *Manager) onHost(id vm.ID, l vm.Lease) vm.Lease {
	_, n, _ := vm.BridgeOf(l.Bridge)
	l.TAP, l.Bridge = id.TAP(m.tag), m.tag.Bridge(n)
	return l
}

// pickAgain keeps a VM's address where it can, and what a VM that runs has: its guest knows no other.
func (m *Manager) pickAgain(v vm.VM) LeasePicker {
	return func(taken, resting []netip.Addr) (vm.Lease, error) {
		had := v.Lease.Address.Addr()
		l, ok := m.Network.Lease(had)
		if v.Process != nil {
			l, ok = v.Lease, had.IsValid()
		}
		if ok && !slices.Contains(taken, had) {
			return m.onHost(v.ID, l), nil
		}
		return m.pick(v.ID)(taken, resting)
	}
}

// commitStart commits the intent to start a VM. One whose lease is not what its address gets now, since the subnet was moved
// or the lease is older than what is in it, gets another: whoever looks for it is warned.
func (m *Manager) commitStart(ctx context.Context, job *op.Job, v vm.VM, hold []vm.Record) (vm.VM, error) {
	o := job.Snapshot()
	c := vm.Change{VM: v, Hold: hold, Op: &o}
	if l, ok := m.Network.Lease(v.Lease.Address.Addr()); ok && m.onHost(v.ID, l) == v.Lease {
		return v, m.commit(ctx, c)
	}
	c.VM.Changed = time.Now()
	let, err := m.store.Relet(ctx, c, m.pickAgain(v))
	if err != nil {
		return v, err
	}
	job.Warn("from now on its address is " + addressOf(let.Lease) + "; it was " + addressOf(v.Lease))
	return let, m.dirs.Write(let)
}

// addressOf tells a lease's addresses.
func addressOf(l vm.Lease) string {
	switch {
	case !l.Address.IsValid():
		return "none"
	case !l.Address6.IsValid():
		return l.Address.Addr().String()
	}
	return l.Address.Addr().String() + " and " + l.Address6.Addr().String()
}
