package lifecycle

import (
	"context"
	"errors"
	"time"

	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/op"
	"banger/internal/vm"
)

// undoBudget bounds the work of taking down what a failed or canceled verb had made.
const undoBudget = 2 * time.Minute

// errCanceled is the cause of a context that a user called off.
var errCanceled = fault.New(fault.Canceled, "called off by the user")

// newOperation describes a verb on a VM.
func newOperation(kind string, v vm.VM, owner int) op.Operation {
	return op.Operation{
		ID: op.NewID(), Kind: kind, Subject: string(v.ID), Name: v.Name, Owner: owner,
		State: op.Underway, Created: time.Now(),
	}
}

// spawn runs a verb's body as a tracked operation. The body holds the VM's lock.
func (m *Manager) spawn(o op.Operation, id vm.ID, body func(ctx context.Context, job *op.Job) error) op.Operation {
	return m.spawnWith(o, id, func(ctx context.Context) (func(), error) { return m.locks.lock(ctx, id) }, body)
}

// spawnHolding is spawn for whoever has the VM's lock already, which is unlocked at the end: a VM of which it is
// committed that it is to be made is not to be found while nobody makes it, or it would be undone.
func (m *Manager) spawnHolding(o op.Operation, id vm.ID, unlock func(), body func(ctx context.Context, job *op.Job) error) op.Operation {
	return m.spawnWith(o, id, func(context.Context) (func(), error) { return unlock, nil }, body)
}

func (m *Manager) spawnWith(o op.Operation, id vm.ID, lock func(context.Context) (func(), error), body func(ctx context.Context, job *op.Job) error) op.Operation {
	ctx, cancel := context.WithCancelCause(m.ctx)
	job := m.Tracker.Begin(o, func() { cancel(errCanceled) })
	m.jobs.run(func() {
		defer cancel(nil)
		unlock, err := lock(ctx)
		if err == nil {
			err = body(ctx, job)
			unlock()
		}
		if err = m.asFault(o, err); err != nil {
			// Whatever the verb could not commit itself, the next daemon must not find this under way.
			m.saveEnd(job, err)
		}
		job.Finish(err)
		if m.ctx.Err() == nil {
			m.keepUp(id)
		}
	})
	return job.Snapshot()
}

// saveEnd stores how an operation ended, before anybody is told.
func (m *Manager) saveEnd(job *op.Job, err error, news ...event.Event) {
	o := job.Snapshot().Finished(err)
	if lost := m.store.SaveOperation(context.WithoutCancel(m.ctx), o, news...); lost != nil {
		m.log.Error("store how an operation ended", "operation", o.ID, "error", lost)
	}
}

// asFault says which verb on which VM failed, unless the error says it already.
func (m *Manager) asFault(o op.Operation, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errCanceled) {
		err = fault.New(fault.Canceled, "it was called off").WithHint("what it had made was taken down again")
	} else if errors.Is(err, context.Canceled) {
		err = fault.New(fault.Canceled, "the daemon is stopping")
	}
	f := fault.From(err)
	if f.Op == "" {
		f = f.WithOp(verbs[o.Kind], o.Name)
	}
	if len(f.Logs) == 0 && unforeseen(f.Code) {
		f = f.WithLogs(m.layout.DaemonLog())
	}
	return f
}

// unforeseen reports whether a failure is none that a user can read off its message: the story is in a log.
func unforeseen(c fault.Code) bool {
	switch c {
	case fault.Requirement, fault.Unavailable, fault.Timeout, fault.GuestFailed, fault.Corrupt, fault.Internal:
		return true
	case fault.Invalid, fault.NotFound, fault.AlreadyExists, fault.Ambiguous, fault.WrongState, fault.InUse,
		fault.Forbidden, fault.Exhausted, fault.Canceled, fault.Incompatible:
	}
	return false
}

// verbs names operations as people do.
var verbs = map[string]string{
	KindCreate: "create VM", KindStart: "start VM", KindStop: "stop VM", KindKill: "kill VM",
	KindDelete: "delete VM", KindEnded: "settle VM", KindRestart: "restart VM", KindAdopt: "adopt VM", KindPause: "pause VM", KindResume: "resume VM",
	KindFork: "fork VM", KindCheckpoint: "checkpoint VM", KindRollback: "take back VM",
	KindSet: "set VM", KindRestore: "restore VM", KindDestroy: "empty trash of VM",
	KindPull: "pull image", KindImport: "import image", KindWarm: "warm image",
}

// Words says what a kind of operation does, such as "create VM".
func Words(kind string) string { return verbs[kind] }

// Kinds of operations on VMs.
const (
	KindCreate = "vm.create"
	KindStart  = "vm.start"
	KindStop   = "vm.stop"
	KindKill   = "vm.kill"
	KindDelete = "vm.delete"
	KindPause  = "vm.pause"
	KindResume = "vm.resume"
	KindEnded  = "vm.ended" // the guest or its hypervisor ended by itself
	KindSet    = "vm.set"   // what its owner asks of it

	KindRestart = "vm.restart" // started by its restart policy

	KindRestore = "vm.restore" // out of the trash
	KindAdopt   = "vm.adopt"   // a directory that the database did not know
	KindDestroy = "vm.destroy" // in the trash

	KindFork       = "vm.fork"       // others are made of it
	KindCheckpoint = "vm.checkpoint" // it can be taken back to how it is now
	KindRollback   = "vm.rollback"   // it is taken back
)

// ending returns the operation as it will stand once it has ended well, for the commit that records
// the verb's outcome: outcome and end of operation are one transaction.
func ending(job *op.Job) *op.Operation {
	return new(job.Snapshot().Finished(nil))
}

// failed returns the operation as it will stand once it has failed with err.
func (m *Manager) failed(job *op.Job, err error) *op.Operation {
	o := job.Snapshot()
	return new(o.Finished(m.asFault(o, err)))
}
