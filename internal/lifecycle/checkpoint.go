package lifecycle

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/snapshot"
	"banger/internal/sshkey"
	"banger/internal/vm"
)

// Checkpoint is what a VM can be taken back to.
type Checkpoint struct {
	snapshot.Manifest
	Size int64 // bytes that its memory occupies of the disk; its disks share theirs where they can
	Err  error // why the VM cannot be taken back to it; nil where it can
}

// Checkpoint keeps a running VM as it is now, memory and disks, under a name. It stands still meanwhile for as long as
// its memory is written.
func (m *Manager) Checkpoint(ctx context.Context, caller vm.Caller, selector, name string) (op.Operation, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	if err := snapshot.CheckName(name); err != nil {
		return op.Operation{}, err
	}
	if err := catchable(v); err != nil {
		return op.Operation{}, err
	}
	if _, err := m.checkpoint(v, name); !errors.Is(err, fs.ErrNotExist) {
		return op.Operation{}, fault.New(fault.AlreadyExists, "there is one already").WithOp("make checkpoint of "+v.Name, name).
			WithHint("choose another name, or delete it with `banger vm checkpoint delete %s %s`", v.Name, name)
	}
	return m.spawn(newOperation(KindCheckpoint, v, caller.UID), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil {
			return err
		}
		if err := catchable(v); err != nil {
			return err
		}
		return m.keep(ctx, job, v, name)
	}), nil
}

func catchable(v vm.VM) error {
	switch v.State {
	case vm.Running:
		return nil
	case vm.Paused:
		return isPaused(v, "checkpoint VM")
	default:
		return notRunning(v, "checkpoint VM")
	}
}

// keep takes a checkpoint of the VM whose lock the caller holds.
func (m *Manager) keep(ctx context.Context, job *op.Job, v vm.VM, name string) error {
	l := m.liveOf(v.ID)
	if l == nil {
		return notHeld(v, "checkpoint VM")
	}
	b, err := m.blueprint(v)
	if err != nil {
		return err
	}
	v.Spec = shape(v)
	b.Machine.VCPU, b.Machine.Memory = v.Spec.VCPU, v.Spec.Memory
	frozen, err := m.frozen(ctx, b)
	if err != nil {
		return err
	}
	if err := m.admitSnapshot(job, v, v.Spec.Memory, m.layout.Jail(v.ID)); err != nil {
		return err
	}
	if err := m.store.SaveOperation(ctx, job.Snapshot()); err != nil {
		return err
	}
	dir := m.checkpointDir(v, name)
	err = run(ctx, job, group{m.emptied(dir)})
	if err == nil {
		err = m.catch(ctx, job, v, l, dir)
		m.rouse(v)
	}
	if err == nil {
		err = run(ctx, job, group{m.sealed(dir, snapshot.Manifest{Name: name, Created: time.Now(), Frozen: frozen, VM: v})})
	}
	if err != nil && !fault.Is(err, fault.AlreadyExists) {
		return errors.Join(err, m.Snaps.Remove(dir))
	}
	return errors.Join(err, m.store.SaveOperation(ctx, *ending(job)))
}

// sealed makes a snapshot whole.
func (m *Manager) sealed(dir string, s snapshot.Manifest) step {
	return step{"seal", func(ctx context.Context, _ feature.Report) error { return m.Snaps.Seal(ctx, dir, s) }}
}

func (m *Manager) checkpointDir(v vm.VM, name string) string {
	return filepath.Join(m.layout.Checkpoints(v.ID), name)
}

// checkpoint opens one. None is fs.ErrNotExist.
func (m *Manager) checkpoint(v vm.VM, name string) (snapshot.Manifest, error) {
	return m.Snaps.Open(m.checkpointDir(v, name))
}

// findCheckpoint opens one that somebody named.
func (m *Manager) findCheckpoint(v vm.VM, name string) (snapshot.Manifest, error) {
	if err := snapshot.CheckName(name); err != nil {
		return snapshot.Manifest{}, err
	}
	s, err := m.checkpoint(v, name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, fault.New(fault.NotFound, "VM %s has no checkpoint of this name", v.Name).WithOp("find checkpoint", name).
			WithHint("run `banger vm checkpoint list %s`", v.Name)
	}
	return s, err
}

// Checkpoints lists a VM's checkpoints by name.
func (m *Manager) Checkpoints(ctx context.Context, caller vm.Caller, selector string) ([]Checkpoint, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return nil, err
	}
	names, err := m.Snaps.List(m.layout.Checkpoints(v.ID))
	if err != nil {
		return nil, err
	}
	all := make([]Checkpoint, len(names))
	for i, name := range names {
		c := Checkpoint{}
		if c.Manifest, c.Err = m.checkpoint(v, name); c.Err == nil {
			c.Err = m.fits(ctx, v, c.Manifest)
		}
		c.Name = name
		if c.Size, err = m.allocated(files(m.checkpointDir(v, name)).Memory); err != nil {
			return nil, err
		}
		all[i] = c
	}
	return all, nil
}

// fits reports why a VM cannot go on from a checkpoint on this host as it is now.
func (m *Manager) fits(ctx context.Context, v vm.VM, s snapshot.Manifest) error {
	v.Spec = s.VM.Spec
	b, err := m.blueprint(v)
	if err != nil {
		return err
	}
	now, err := m.frozen(ctx, b)
	if err != nil {
		return err
	}
	if differs := s.Frozen.Differs(now); differs != "" {
		return fault.New(fault.Incompatible, "%s", differs).WithOp("go back to checkpoint", s.Name).
			WithHint("its memory can be gone on from only where all of that is as it was; bring that back, or delete the checkpoint")
	}
	return nil
}

// DeleteCheckpoint removes one. The VM itself stays as it is.
func (m *Manager) DeleteCheckpoint(ctx context.Context, caller vm.Caller, selector, name string) error {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return err
	}
	unlock, err := m.locks.lock(ctx, v.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := m.findCheckpoint(v, name); err != nil && !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.Incompatible) {
		return err
	}
	return m.Snaps.Remove(m.checkpointDir(v, name))
}

// Rollback takes a VM back to a checkpoint: to its disks and its memory as they were. The VM's name, address and keys
// stay as they are now. The disks that are replaced go to the trash, as a VM of their own.
func (m *Manager) Rollback(ctx context.Context, caller vm.Caller, selector, name string) (op.Operation, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	if err := rollable(v); err != nil {
		return op.Operation{}, err
	}
	s, err := m.findCheckpoint(v, name)
	if err == nil {
		err = m.fits(ctx, v, s)
	}
	if err == nil {
		err = m.preflight(ctx, v)
	}
	if err != nil {
		return op.Operation{}, fault.From(err).InOp("take back VM", v.Name)
	}
	return m.spawn(newOperation(KindRollback, v, caller.UID), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil {
			return err
		}
		if err := rollable(v); err != nil {
			return err
		}
		s, err := m.findCheckpoint(v, name)
		if err != nil {
			return err
		}
		return m.rollback(ctx, job, v, s)
	}), nil
}

func rollable(v vm.VM) error {
	switch v.State {
	case vm.Running, vm.Stopped, vm.Crashed, vm.Paused:
		return nil
	default:
		return fault.New(fault.WrongState, "it is %s", v.State).WithOp("take back VM", v.Name)
	}
}

// rollback takes back the VM whose lock the caller holds. Until the disks change places it is as it was, but that it may
// be stopped; from then on it has those of the checkpoint, and can be booted where its memory cannot be gone on from.
func (m *Manager) rollback(ctx context.Context, job *op.Job, v vm.VM, s snapshot.Manifest) error {
	if upright(v) && m.liveOf(v.ID) == nil {
		return notHeld(v, "take back VM")
	}
	then := v // as it is going to be
	then.Spec, then.Settings = s.VM.Spec, maps.Clone(s.VM.Settings)
	if err := m.sole(&then, func(s feature.Setting) string { return s.Get(v) }); err != nil {
		return err
	}
	b, err := m.blueprint(then)
	if err == nil {
		err = m.roomFor(ctx, then) // before it costs a running VM
	}
	if err != nil {
		return err
	}
	dir := m.checkpointDir(v, s.Name)
	before, free, err := m.intendBefore(ctx, job, v, s, dir)
	defer free()
	if err != nil {
		return err
	}
	if err = m.furnish(ctx, job, before, dir, nil); err == nil {
		v, err = m.lieDown(ctx, job, v)
	}
	if err == nil {
		before.Spec = v.Spec
		v, err = m.admitBackTo(ctx, job, v, then, running(b.Records))
	}
	if err == nil && v.Lease != then.Lease { // the guest adopts another
		then.Lease = v.Lease
		b, err = m.blueprint(then)
	}
	if err != nil {
		return errors.Join(err, m.eraseAnyway(before, m.failed(job, err)))
	}
	if v, err = m.swap(ctx, job, v, then, before); err == nil {
		if err = m.wakeFrom(ctx, job, v, b, s, dir); err != nil {
			err = fault.From(err).WithHint("its disks are those of the checkpoint: `banger vm start %s` boots from them; those before are in the trash as %s", v.Name, before.Name)
		}
	}
	if err == nil {
		return nil
	}
	return m.unstarted(job, v, err)
}

// admitBackTo commits the intent to start a VM that is stopped as what it is going to be, unless the host cannot take
// that. Until its disks are others it keeps what is asked of it. But whichever disks a crash leaves it, none is larger than
// what is committed: a device that is made too small does not mount.
func (m *Manager) admitBackTo(ctx context.Context, job *op.Job, v, then vm.VM, hold []vm.Record) (vm.VM, error) {
	m.admitting.Lock()
	defer m.admitting.Unlock()
	if err := m.roomFor(ctx, then); err != nil {
		return v, err
	}
	v.Spec.RootDisk, v.Spec.WorkDisk = max(v.Spec.RootDisk, then.Spec.RootDisk), max(v.Spec.WorkDisk, then.Spec.WorkDisk)
	v.State, v.Desired = vm.Starting, vm.Running
	return m.commitStart(ctx, job, v, hold)
}

// intendBefore commits that there is to be a VM with which the replaced disks go to the trash. It begins with those of
// the checkpoint, in the directory dir. Its turn is held until free is called.
func (m *Manager) intendBefore(ctx context.Context, job *op.Job, v vm.VM, s snapshot.Manifest, dir string) (before vm.VM, free func(), err error) {
	before = v.Clone()
	before.ID, before.Name = vm.NewID(), beforeName(v, s.Name)
	host, err := sshkey.New("banger " + before.Name)
	if err != nil {
		return before, func() {}, err
	}
	// Taken back out of the trash it is another machine.
	before.Access.HostKey, before.Access.HostKeyPrivate, before.Access.MachineID = host.Public, host.Private, vm.NewMachineID()
	before.Spec = s.VM.Spec
	before.State, before.Desired, before.Restart = vm.Creating, vm.Stopped, vm.RestartNo
	before.Rests()
	if err := m.sole(&before, func(feature.Setting) string { return "" }); err != nil {
		return before, func() {}, err
	}
	if err := m.admitSnapshot(job, v, 0, dir); err != nil {
		return before, func() {}, err
	}
	if free, err = m.locks.lock(ctx, before.ID); err != nil {
		return before, func() {}, err
	}
	create := func() (vm.VM, error) {
		return m.store.Create(ctx, before, m.pick(before.ID), func(leased vm.VM) []vm.Record { return lasting(m.records(leased)) }, job.Snapshot())
	}
	made, err := create()
	if fault.Is(err, fault.AlreadyExists) { // as that of one which was taken back out of the trash
		before.Name = "before-" + string(before.ID)
		made, err = create()
	}
	return made, free, err
}

// beforeName is by what the replaced disks are found in the trash.
func beforeName(v vm.VM, checkpoint string) string {
	name := v.Name + "-before-" + strings.ReplaceAll(checkpoint, ".", "-")
	return strings.TrimRight(name[:min(len(name), 63)], "-")
}

// admitSnapshot refuses what the disk has no room for: so many bytes of memory, and copies of the disks in a directory
// where a copy does not share its blocks.
func (m *Manager) admitSnapshot(job *op.Job, v vm.VM, memory int64, dir string) error {
	copies, err := m.copied(v, dir)
	if err != nil {
		return err
	}
	warning, err := m.admitDisk(memory+copies, 0)
	if warning != "" {
		job.Warn(warning)
	}
	return err
}

// lieDown stops a VM that runs, whose guest is not asked whether it wants to: it is going to be what it was. But what
// it has not written yet is to be on the disks that go to the trash.
func (m *Manager) lieDown(ctx context.Context, job *op.Job, v vm.VM) (vm.VM, error) {
	const lost = "what the guest had not written to its disks is not on those in the trash: "
	l := m.liveOf(v.ID)
	if l != nil && l.isPaused() {
		job.Warn(lost + "it was paused")
	}
	if l != nil && !l.isPaused() {
		flush := step{"flush", func(ctx context.Context, report feature.Report) error {
			ctx, cancel := context.WithTimeout(ctx, guardBudget)
			defer cancel()
			if err := l.agent().Hold(ctx); err != nil {
				report(err.Error())
				job.Warn(lost + err.Error())
			}
			return nil
		}}
		if err := run(ctx, job, group{flush}); err != nil {
			return v, err
		}
	}
	if l != nil {
		if err := m.bringDown(ctx, job, v, 0, continues); err != nil {
			return v, err
		}
	}
	return m.reload(ctx, v.ID)
}

// continues is the operation at the end of a part of it: there is nothing to store yet.
func continues(*op.Job) *op.Operation { return nil }

// swap gives a VM the disks of another, and that one, which is to be found in the trash, its own. It returns the VM as it
// is then.
func (m *Manager) swap(ctx context.Context, job *op.Job, v, then, before vm.VM) (vm.VM, error) {
	// From here on whatever it has goes to the trash, whoever has to finish that. What is in the trash is what it says
	// itself, so that comes first.
	gone := before
	gone.State, gone.Desired, gone.Deleted = vm.Deleting, vm.Deleting, time.Now()
	err := m.dirs.Write(gone)
	if err == nil {
		err = m.commit(ctx, vm.Change{VM: gone})
	}
	if err != nil {
		return v, errors.Join(err, m.eraseAnyway(before, nil))
	}
	err = run(ctx, job, group{{"exchange disks", func(context.Context, feature.Report) error { return m.dirs.Exchange(v.ID, gone.ID) }}})
	if err == nil {
		v.Spec, v.Settings = then.Spec, then.Settings
		err = m.commit(ctx, vm.Change{VM: v})
	}
	if eerr := m.eraseAnyway(gone, nil); eerr != nil {
		m.log.Error("put replaced disks in the trash; it is tried again", "vm", gone.Name, "id", gone.ID, "error", eerr)
	}
	return v, err
}

// eraseAnyway is erase for when the verb may have been called off.
func (m *Manager) eraseAnyway(v vm.VM, o *op.Operation) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), undoBudget)
	defer cancel()
	return m.erase(ctx, v, o)
}

// wakeFrom has a VM that has the disks of a checkpoint go on from it.
func (m *Manager) wakeFrom(ctx context.Context, job *op.Job, v vm.VM, b feature.Blueprint, s snapshot.Manifest, dir string) error {
	if err := run(ctx, job, m.upHeld(v, false)); err != nil {
		return err
	}
	v, err := m.riseFrom(ctx, job, v, b, s, dir)
	if err != nil {
		return err
	}
	return m.runs(ctx, v, ending(job))
}
