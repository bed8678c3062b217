package lifecycle

import (
	"context"
	"errors"
	"time"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/vm"
)

// Start boots a VM that is stopped or has crashed.
func (m *Manager) Start(ctx context.Context, caller vm.Caller, selector string) (op.Operation, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	if err := startable(v); err != nil {
		return op.Operation{}, err
	}
	if err := m.preflight(ctx, v); err != nil {
		return op.Operation{}, fault.From(err).InOp("start VM", v.Name)
	}
	return m.spawn(newOperation(KindStart, v, caller.UID), v.ID, func(ctx context.Context, job *op.Job) error {
		return m.start(ctx, job, v.ID)
	}), nil
}

func startable(v vm.VM) error {
	switch v.State {
	case vm.Stopped, vm.Crashed, vm.Stopping:
		return nil
	case vm.Running, vm.Starting, vm.Creating:
		return fault.New(fault.WrongState, "it is %s already", v.State).WithOp("start VM", v.Name).
			WithHint("reach it with `banger vm ssh %s`", v.Name)
	case vm.Paused:
		return isPaused(v, "start VM")
	default:
		return fault.New(fault.WrongState, "it is %s", v.State).WithOp("start VM", v.Name)
	}
}

// start boots the VM whose lock the caller holds.
func (m *Manager) start(ctx context.Context, job *op.Job, id vm.ID) error {
	v, err := m.reload(ctx, id)
	if err != nil {
		return err
	}
	if err := startable(v); err != nil {
		return err
	}
	b, err := m.blueprint(v)
	if err != nil {
		return err
	}
	if v, err = m.admitStart(ctx, job, v, running(b.Records)); err != nil {
		return err
	}
	err = run(ctx, job, m.up(v, false))
	if err == nil {
		err = m.boot(ctx, job, v)
	}
	if err == nil {
		return nil
	}
	return m.unstarted(job, v, err)
}

// unstarted commits that a start has failed, and why.
func (m *Manager) unstarted(job *op.Job, v vm.VM, err error) error {
	err = m.explain(v, err)
	v.State, v.Reason = vm.Stopped, "the last start failed: "+fault.From(err).Msg
	v = unwanted(v)
	return errors.Join(err, m.rest(v, m.failed(job, err)))
}

// unwanted is a VM that went down and is not meant to come up by itself, unless it is kept up.
func unwanted(v vm.VM) vm.VM {
	if v.Restart != vm.RestartAlways {
		v.Desired = vm.Stopped
	}
	return v
}

// Stop shuts a running guest down in order, and kills it when it is not down in time. A zero timeout
// takes the daemon's default.
func (m *Manager) Stop(ctx context.Context, caller vm.Caller, selector string, timeout time.Duration) (op.Operation, error) {
	return m.end(ctx, caller, selector, KindStop, orDefault(timeout, m.StopTimeout))
}

// Kill ends a VM's hypervisor at once. What the guest had not written to its disks is lost.
func (m *Manager) Kill(ctx context.Context, caller vm.Caller, selector string) (op.Operation, error) {
	return m.end(ctx, caller, selector, KindKill, 0)
}

func (m *Manager) end(ctx context.Context, caller vm.Caller, selector, kind string, patience time.Duration) (op.Operation, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	if err := stoppable(kind, v); err != nil {
		return op.Operation{}, err
	}
	return m.spawn(newOperation(kind, v, caller.UID), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil {
			return err
		}
		if err := stoppable(kind, v); err != nil {
			return err
		}
		return m.bringDown(ctx, job, v, patience, ending)
	}), nil
}

func stoppable(kind string, v vm.VM) error {
	switch v.State {
	case vm.Stopped, vm.Crashed:
		if v.Due() {
			return nil // it is to stay down
		}
		return fault.New(fault.WrongState, "it is %s already", v.State).WithOp(verbs[kind], v.Name).
			WithHint("start it with `banger vm start %s`, or remove it with `banger vm delete %s`", v.Name, v.Name)
	case vm.Deleting, vm.Restoring:
		return fault.New(fault.WrongState, "it is %s", v.State).WithOp(verbs[kind], v.Name)
	default:
		return nil
	}
}

// bringDown stops the VM whose lock the caller holds, with the given patience for the guest. end is ending where that is
// all of the operation.
func (m *Manager) bringDown(ctx context.Context, job *op.Job, v vm.VM, patience time.Duration, end func(*op.Job) *op.Operation) error {
	v.State, v.Desired = vm.Stopping, vm.Stopped
	o := job.Snapshot()
	if err := m.commit(ctx, vm.Change{VM: v, Op: &o}); err != nil {
		return err
	}
	// From here on there is no way back: whoever calls it off only stops watching.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience+undoBudget)
	defer cancel()
	if l := m.liveOf(v.ID); l != nil {
		l.ask()
		var steps []group
		if l.isPaused() && patience > 0 {
			steps = append(steps, group{{"resume", func(ctx context.Context, report feature.Report) error {
				return m.wake(ctx, v.ID, l, report)
			}}})
		}
		if patience > 0 {
			steps = append(steps, group{{"shutdown", func(ctx context.Context, report feature.Report) error {
				return m.shutdown(ctx, l, patience, report)
			}}})
		}
		steps = append(steps, group{{"hypervisor", func(ctx context.Context, _ feature.Report) error { return m.hyper.Kill(ctx, l.process()) }}})
		if err := run(ctx, job, steps...); err != nil {
			return err
		}
	}
	v.State, v.Reason = vm.Stopped, ""
	return run(ctx, job, group{{"devices", func(context.Context, feature.Report) error { return m.rest(v, end(job)) }}})
}

// shutdown asks the agent and waits for the hypervisor's end. A guest that cannot be asked, or takes
// too long, is left for the kill that follows.
func (m *Manager) shutdown(ctx context.Context, l *live, patience time.Duration, report feature.Report) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !m.askDown(ctx, l) {
		report("the agent does not answer: killing it")
		return nil
	}
	select {
	case <-l.gone:
	case <-ctx.Done():
		report("not down after " + patience.String() + ": killing it")
	}
	return nil
}

// askTime is how long an agent that refuses is asked again: its supervisor starts a dead one within a
// moment, and to kill the guest meanwhile would lose what it has not written yet.
const askTime = 5 * time.Second

// askDown asks the agent to shut its guest down, and reports whether the guest is going or gone.
func (m *Manager) askDown(ctx context.Context, l *live) bool {
	begun := time.Now()
	for l.agent().Shutdown(ctx, agentproto.IntentPoweroff) != nil {
		if time.Since(begun) > askTime {
			return false
		}
		select {
		case <-l.gone:
			return true
		case <-ctx.Done():
			return false
		case <-time.After(m.HaltInterval):
		}
	}
	return true
}

// rest removes what a running VM holds and commits the state that v has. It does not end with the
// verb's context: a VM half taken down helps nobody.
func (m *Manager) rest(v vm.VM, o *op.Operation) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), undoBudget)
	defer cancel()
	m.release(v.ID)
	v.Rests()
	records, err := m.store.Records(ctx, v.ID)
	if err != nil {
		return err
	}
	if err := m.takeDown(ctx, running(records)); err != nil {
		return err
	}
	return m.commit(ctx, vm.Change{VM: v, Drop: vm.UntilStop, Op: o})
}

// commit stores the change and then the VM's own description beside its disks. The database leads;
// vm.json is what it can be rebuilt from.
func (m *Manager) commit(ctx context.Context, c vm.Change) error {
	c.VM.Changed = time.Now()
	if err := m.store.Commit(ctx, c); err != nil {
		return err
	}
	err := m.dirs.Write(c.VM)
	switch c.VM.State {
	case vm.Running, vm.Stopping, vm.Stopped, vm.Crashed, vm.Deleting, vm.Paused:
		// What runs, goes down or is paused needs no description to be so: its change is committed. A full disk or a
		// lost directory must not hold a VM for ever, nor turn an operation that has ended well into a failed one.
		if err != nil {
			m.log.Error("describe VM", "vm", c.VM.Name, "id", c.VM.ID, "error", err)
		}
		return nil
	case vm.Creating, vm.Starting, vm.Restoring:
	}
	return err
}

// crashed is a VM that has crashed, with what its logs tell of that.
func (m *Manager) crashed(v vm.VM, panicked bool) vm.VM {
	v.Reason = vm.Crash(v.Reason, panicked, m.dirs.Tail(m.layout.ConsoleLog(v.ID), crashLines), m.dirs.Tail(m.layout.FirecrackerLog(v.ID), crashLines))
	return v
}

// crashLines is how much of a log is looked through: a panic is followed by its trace.
const crashLines = 80

// settle brings a VM whose guest or hypervisor ended by itself to rest, and starts it again when the
// guest meant to reboot.
func (m *Manager) settle(id vm.ID, l *live) {
	v, err := m.reload(m.ctx, id)
	if err != nil {
		m.log.Error("settle VM", "id", id, "error", err)
		return
	}
	m.spawn(newOperation(KindEnded, v, v.Owner), id, func(ctx context.Context, job *op.Job) error {
		if m.liveOf(id) != l {
			return nil // another verb has dealt with it meanwhile
		}
		v, err := m.reload(ctx, id)
		if err != nil {
			return err
		}
		ending := l.judged()
		verdict := ending.Judge()
		v.State, v.Reason = verdict.State, verdict.Reason
		if v.State == vm.Crashed {
			v = m.crashed(v, ending.LastWords == vm.WordsPanic)
		}
		if verdict.State == vm.Stopped && !verdict.Restart {
			v = unwanted(v)
		}
		m.log.Info("guest ended", "vm", v.Name, "id", id, "verdict", verdict.State, "restart", verdict.Restart, "reason", verdict.Reason)
		err = run(ctx, job, group{{"devices", func(context.Context, feature.Report) error { return m.rest(v, nil) }}})
		if err != nil {
			m.hold(id, l) // whoever tries again must know how it ended
			return err
		}
		if !verdict.Restart {
			return nil
		}
		return m.start(ctx, job, id)
	})
}
