package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"banger/internal/op"
	"banger/internal/vm"
)

// Recover brings what the store says in line with what the kernel says, after the daemon was
// restarted: it takes running VMs back, finishes or undoes what was interrupted, and settles VMs
// that ended meanwhile. It must return before the first verb.
//
// A VM that cannot be recovered does not keep the others from it: its error is logged and the next
// start tries again.
func (m *Manager) Recover(ctx context.Context) error {
	all, err := m.store.VMs(ctx)
	if err != nil {
		return err
	}
	var eg errgroup.Group
	eg.SetLimit(16)
	for _, v := range all {
		eg.Go(func() error {
			if err := errors.Join(m.holdAgain(ctx, v), m.recoverVM(ctx, v)); err != nil {
				m.log.Error("recover VM", "vm", v.Name, "id", v.ID, "state", v.State, "error", err)
			}
			m.keepUp(v.ID)
			return nil
		})
	}
	err = eg.Wait()
	m.watch.run(m.sweep)
	return err
}

// holdAgain gives a VM its records back that a rebuilt database has none of: without them nothing that it holds
// would ever be taken down.
func (m *Manager) holdAgain(ctx context.Context, v vm.VM) error {
	records, err := m.store.Records(ctx, v.ID)
	if err != nil || len(records) > 0 {
		return err
	}
	img, err := m.imageOf(v)
	if err != nil {
		m.log.Warn("the image of a VM cannot be read", "vm", v.Name, "id", v.ID, "image", v.Image.Name, "error", err)
	}
	records = m.plan(v, img).Records
	if v.State == vm.Stopped || v.State == vm.Crashed {
		records = lasting(records)
	}
	return m.store.Commit(ctx, vm.Change{VM: v, Hold: records})
}

func (m *Manager) recoverVM(ctx context.Context, v vm.VM) error {
	switch v.State {
	case vm.Creating, vm.Deleting:
		// Nobody was ever given a VM whose create was interrupted; nobody wants one that was being deleted.
		m.log.Info("finish interrupted operation", "vm", v.Name, "id", v.ID, "state", v.State)
		return m.erase(ctx, v, nil)
	case vm.Restoring:
		return m.finishRestore(ctx, v, nil)
	case vm.Starting:
		v.State, v.Reason = vm.Stopped, "its start was interrupted by the daemon's end"
		return m.rest(unwanted(v), nil)
	case vm.Stopping, vm.Running, vm.Paused:
		if v.Process != nil && m.hyper.Alive(*v.Process) {
			if err := m.reattach(ctx, v); err == nil || m.hyper.Alive(*v.Process) {
				return err
			}
		}
		switch {
		case v.State == vm.Stopping:
			v.State, v.Desired, v.Reason = vm.Stopped, vm.Stopped, "its stop was interrupted by the daemon's end"
		case v.Process == nil || v.Process.BootID != m.BootID:
			v.State, v.Reason = vm.Stopped, "the host was restarted"
		default:
			v.State, v.Reason = vm.Crashed, "its hypervisor ended while no daemon was watching"
		}
		return m.rest(v, nil)
	default:
		return nil
	}
}

// reattach takes a running VM back, and goes on stopping one that was being stopped: to kill it now
// would lose what its guest has not written yet.
func (m *Manager) reattach(ctx context.Context, v vm.VM) error {
	l := newLive()
	// It has booted: the config, which holds secrets, is not given out again.
	guest, err := m.guests.Open(m.layout.Jail(v.ID), nil, func(e GuestEvent) { m.guestEvent(l, nil, e) })
	if err != nil {
		return err
	}
	l.begin(guest, *v.Process)
	l.noted = v.State == vm.Paused
	if l.paused, err = m.hyper.Attach(ctx, v.ID, *v.Process, func(line string) { m.consoleLine(l, line) }); err != nil {
		return fmt.Errorf("attach to pid %d: %w", v.Process.PID, errors.Join(err, guest.Close()))
	}
	m.adopt(v.ID, l)
	m.log.Info("took VM back", "vm", v.Name, "id", v.ID, "pid", v.Process.PID)

	// It may have powered itself off while nobody watched: then it is silent for ever.
	ping, cancel := context.WithTimeout(ctx, m.HaltInterval)
	defer cancel()
	if !l.isPaused() && guest.Ping(ping) != nil {
		l.mu.Lock()
		m.watchHalt(l)
		l.mu.Unlock()
	}
	if v.State == vm.Stopping {
		m.finishStop(v)
		return nil
	}
	// The daemon may have died between the commit and the description of it.
	return m.dirs.Write(v)
}

// finishStop stops a VM whose stop a dead daemon had begun.
func (m *Manager) finishStop(v vm.VM) {
	m.spawn(newOperation(KindStop, v, v.Owner), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil || v.State != vm.Stopping {
			return err
		}
		return m.stop(ctx, job, v, m.StopTimeout)
	})
}
