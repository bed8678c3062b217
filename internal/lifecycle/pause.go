package lifecycle

import (
	"context"
	"time"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/vm"
)

// retryPause is how long that is left alone which did not work: a VM that could not be paused or resumed,
// a trash that was empty.
const retryPause = 10 * time.Second

// disk is what is known of the disk's fullness. Manager.mu guards it.
type disk struct {
	level     admission.Level
	relieving bool
	relieveAt time.Time // not before
}

// MindDisk looks once at the free space of the state directory's file system. Below the low-water mark it
// has every running VM paused, before the host gives a guest's write an error; they run on once there is
// space again. The trash goes first, its oldest at once, a little above the mark already.
//
// It returns what it saw. What it began goes on by itself.
func (m *Manager) MindDisk(ctx context.Context) (admission.Space, error) {
	space, err := m.Capacity.Space()
	if err != nil {
		return space, fault.System(err, "read the free space of", m.layout.State)
	}
	level := m.Rules.Level(space)
	m.mu.Lock()
	before := m.disk.level
	m.disk.level = level
	m.mu.Unlock()
	if level != before && (level != admission.Enough || before != "") {
		m.log.Warn("free space on the disk", "level", level, "free", space.Free, "mark", m.Rules.Mark(space.Size))
	}
	if level != admission.Enough {
		m.relieve()
	}
	switch level {
	case admission.Low:
		reason := m.Rules.Full(space)
		err = m.turn(ctx, KindPause, func(l *live) bool { return !l.paused || !l.noted }, func(ctx context.Context, job *op.Job, v vm.VM, l *live) error {
			return m.pause(ctx, job, v, l, reason)
		})
	case admission.Enough:
		err = m.turn(ctx, KindResume, func(l *live) bool { return l.paused || l.noted }, m.resume)
	case admission.Scarce: // what was paused for the disk waits for more; what a daemon's end left so does not
		err = m.turn(ctx, KindResume, func(l *live) bool { return l.paused && !l.noted }, m.resume)
	}
	return space, err
}

// relieve empties the trash, one VM at a time.
func (m *Manager) relieve() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disk.relieving || time.Now().Before(m.disk.relieveAt) {
		return
	}
	m.disk.relieving = true
	m.watch.run(func() {
		some, err := m.EmptyOldest(m.ctx)
		if err != nil {
			m.log.Error("make room on the disk", "error", err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.disk.relieving = false
		if !some {
			m.disk.relieveAt = time.Now().Add(retryPause)
		}
	})
}

// turn begins an operation on each VM that needs it and is running or paused. due is called with the live
// VM's lock held.
func (m *Manager) turn(ctx context.Context, kind string, due func(*live) bool, act func(context.Context, *op.Job, vm.VM, *live) error) error {
	ready := func(l *live) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return due(l) && !l.turning && !time.Now().Before(l.turnAt)
	}
	m.mu.Lock()
	waiting := map[vm.ID]*live{}
	for id, l := range m.live {
		if ready(l) {
			waiting[id] = l
		}
	}
	m.mu.Unlock()
	if len(waiting) == 0 {
		return nil
	}
	all, err := m.store.VMs(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		// One that is starting is dealt with once it runs; one that is stopping writes what it must.
		if l := waiting[v.ID]; l != nil && upright(v) {
			m.turnOne(v, l, kind, act)
		}
	}
	return nil
}

func (m *Manager) turnOne(v vm.VM, l *live, kind string, act func(context.Context, *op.Job, vm.VM, *live) error) {
	l.turns(true, nil)
	m.spawn(newOperation(kind, v, v.Owner), v.ID, func(ctx context.Context, job *op.Job) (err error) {
		defer func() { l.turns(false, err) }()
		v, err := m.reload(ctx, v.ID)
		if err != nil || m.liveOf(v.ID) != l || !upright(v) {
			return err // another verb has dealt with it meanwhile
		}
		return act(ctx, job, v, l)
	})
}

func upright(v vm.VM) bool { return v.State == vm.Running || v.State == vm.Paused }

// pause comes before its commit: the guest must not write meanwhile. If the daemon dies between the two,
// the next one finds a paused hypervisor.
func (m *Manager) pause(ctx context.Context, job *op.Job, v vm.VM, l *live, reason string) error {
	err := run(ctx, job, group{{"pause", func(ctx context.Context, _ feature.Report) error {
		l.stands(true) // before it does, or its silence would be taken for a halt
		err := m.hyper.Pause(ctx, v.ID)
		if err != nil {
			l.stands(false)
		}
		return err
	}}})
	if err != nil {
		return err
	}
	v.State, v.Reason = vm.Paused, reason
	if err := m.commit(ctx, vm.Change{VM: v, Op: ending(job)}); err != nil {
		return err
	}
	l.notes(true)
	return nil
}

// resume is complete once it is committed: until then the next daemon takes it for paused, and resumes it.
func (m *Manager) resume(ctx context.Context, job *op.Job, v vm.VM, l *live) error {
	err := run(ctx, job, group{{"resume", func(ctx context.Context, _ feature.Report) error { return m.hyper.Resume(ctx, v.ID) }}})
	if err != nil {
		return err
	}
	l.stands(false)
	v.State, v.Reason = vm.Running, ""
	if err := m.commit(ctx, vm.Change{VM: v, Op: ending(job)}); err != nil {
		return err
	}
	l.notes(false)
	m.watch.run(func() { m.setClock(m.ctx, v.ID, l) }) // it stood still too
	return nil
}

// wake lets a paused guest go on, for its orderly shutdown. One that cannot is killed as one that does not
// answer.
func (m *Manager) wake(ctx context.Context, id vm.ID, l *live, report feature.Report) error {
	if err := m.hyper.Resume(ctx, id); err != nil {
		report("it cannot be resumed: " + err.Error())
	} else {
		l.stands(false)
	}
	return nil
}

// isPaused says why a VM cannot be used just now.
func isPaused(v vm.VM, what string) error {
	return fault.New(fault.WrongState, "it is paused: %s", v.Reason).WithOp(what, v.Name).
		WithHint("free some space on the host, or end it with `banger vm stop %s`", v.Name)
}

func (l *live) isPaused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paused
}

func (l *live) stands(still bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = still
}

func (l *live) notes(paused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noted = paused
}

// turns notes that a pause or a resume begins, or how it ended.
func (l *live) turns(now bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turning = now
	if err != nil {
		l.turnAt = time.Now().Add(retryPause)
	}
}
