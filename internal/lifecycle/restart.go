package lifecycle

import (
	"context"
	"time"

	"banger/internal/op"
	"banger/internal/vm"
)

const (
	steadyRun      = time.Minute // after which a VM's earlier failures count no more
	restartsAtOnce = 4           // so that a fleet's return after a reboot does not starve each of them
)

// keep is what is known of a VM that is started by its restart policy. Manager.mu guards it.
type keep struct {
	tries   int       // since it last ran for a while
	last    time.Time // when it was last tried
	waiting bool      // for its turn, or for the end of it
}

// keepUp sees to it that a VM that is down is started again where its restart policy wants that. It is asked whenever
// anything has happened to the VM.
func (m *Manager) keepUp(id vm.ID) {
	v, err := m.reload(m.ctx, id)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil || v.Restart != vm.RestartAlways {
		delete(m.keeps, id)
		return
	}
	k := m.keeps[id]
	if k == nil {
		k = &keep{}
		m.keeps[id] = k
	}
	if k.waiting || !v.Due() {
		return
	}
	if v.Started.After(k.last) && v.Changed.Sub(v.Started) >= steadyRun {
		k.tries = 0
	}
	pause := vm.RestartPause(m.RestartPause, k.tries)
	k.waiting = true
	k.tries++
	m.log.Info("VM is down and will be started again", "vm", v.Name, "id", id, "state", v.State, "reason", v.Reason, "in", pause, "try", k.tries)
	m.watch.run(func() {
		m.restartAfter(v, pause)
		m.mu.Lock()
		k.waiting, k.last = false, time.Now()
		m.mu.Unlock()
		if m.ctx.Err() == nil {
			m.keepUp(id)
		}
	})
}

// restartAfter starts the VM once the pause is over and it is its turn, and returns when that has ended.
func (m *Manager) restartAfter(v vm.VM, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-m.ctx.Done():
		return
	case <-timer.C:
	}
	select {
	case <-m.ctx.Done():
		return
	case m.restarting <- struct{}{}:
	}
	defer func() { <-m.restarting }()
	if v, err := m.reload(m.ctx, v.ID); err != nil || !v.Due() {
		return // somebody has dealt with it meanwhile
	}
	o := m.spawn(newOperation(KindRestart, v, v.Owner), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil || !v.Due() {
			return err
		}
		if err := m.preflight(ctx, v); err != nil {
			return err
		}
		return m.start(ctx, job, v.ID)
	})
	_ = m.Tracker.Follow(m.ctx, o.ID, func(op.Operation) error { return nil }) // ends with it, or with the daemon
}
