package lifecycle

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/reconcile"
	"banger/internal/snapshot"
	"banger/internal/vm"
)

// createWarm makes a VM of the golden snapshot that fits it: its disks are cloned, its memory is mapped, and its guest
// becomes another machine. It reports whether it did. Where there is no such snapshot, or it could not be gone on from,
// nothing is left of the try but what the store says, and the VM is to be booted.
func (m *Manager) createWarm(ctx context.Context, job *op.Job, v vm.VM) (warm bool, err error) {
	b, err := m.blueprint(v)
	if err != nil {
		return false, err
	}
	from, dir, err := m.golden(ctx, v, b)
	if err == nil && dir != "" {
		v.Golden = from.Name
		m.watch.run(func() { m.minor("read ahead", m.Snaps.Ahead(dir)) })
		if v, err = m.goOn(ctx, job, v, b, from, dir); err == nil {
			pid := v.Process.PID
			m.watch.run(func() { m.minor("learn a working set", m.Snaps.Learn(dir, pid)) })
			return true, m.runs(ctx, v, ending(job))
		}
	}
	if err == nil {
		return false, nil
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	m.log.Warn("a golden snapshot was of no use", "vm", v.Name, "id", v.ID, "dir", dir, "error", err)
	job.Warn("it was booted, since the prepared snapshot could not be gone on from: " + fault.From(err).Msg)
	return false, m.startOver(ctx, v)
}

// minor logs what a create is no worse for, but slower.
func (m *Manager) minor(what string, err error) {
	if err != nil {
		m.log.Warn(what, "error", err)
	}
}

// golden finds the sealed snapshot that the VM can go on from; dir is "" where there is none. One that was altered is
// removed, and told of by the error.
func (m *Manager) golden(ctx context.Context, v vm.VM, b feature.Blueprint) (from snapshot.Manifest, dir string, err error) {
	frozen, err := m.frozen(ctx, b)
	if err != nil {
		return from, "", err
	}
	dir = filepath.Join(m.layout.Golden(), frozen.Key())
	from, err = m.Snaps.Open(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return from, "", nil
	case fault.Is(err, fault.Corrupt):
		return from, "", errors.Join(err, m.Snaps.Remove(dir))
	case err != nil:
		return from, "", err
	case v.Spec.RootDisk < from.VM.Spec.RootDisk || v.Spec.WorkDisk < from.VM.Spec.WorkDisk:
		return from, "", nil // a disk never shrinks
	}
	return from, dir, nil
}

// frozen is what a snapshot of the machine would freeze.
func (m *Manager) frozen(ctx context.Context, b feature.Blueprint) (snapshot.Frozen, error) {
	f, err := m.Freeze(ctx, b.Image)
	f.Image, f.Kernel = b.Image.ID, b.Image.Kernel.SHA256
	f.VCPU, f.Memory, f.BootArgs, f.Devices = b.Machine.VCPU, b.Machine.Memory, b.Machine.BootArgs, snapshot.Devices(b.Machine)
	f.RootBackend = string(b.RootBackend)
	return f, err
}

// files are those of a snapshot that the hypervisor makes and reads.
func files(dir string) vm.Snapshot {
	return vm.Snapshot{State: filepath.Join(dir, snapshot.FileState), Memory: filepath.Join(dir, snapshot.FileMemory)}
}

// goOn makes a new VM of a snapshot, of which nothing but its row is there.
func (m *Manager) goOn(ctx context.Context, job *op.Job, v vm.VM, b feature.Blueprint, from snapshot.Manifest, dir string) (vm.VM, error) {
	if err := m.furnish(ctx, job, v, dir, m.upHeld(v, true)); err != nil {
		return v, err
	}
	return m.riseFrom(ctx, job, v, b, from, dir)
}

// riseFrom has a VM whose disks are those of a snapshot go on from there. It is committed as running by the caller.
func (m *Manager) riseFrom(ctx context.Context, job *op.Job, v vm.VM, b feature.Blueprint, from snapshot.Manifest, dir string) (vm.VM, error) {
	l := newLive()
	v, err := m.rise(ctx, job, v, l,
		step{"restore", func(ctx context.Context, _ feature.Report) error { return m.restore(ctx, l, b, files(dir)) }},
		step{"identity", func(ctx context.Context, _ feature.Report) error { return m.identify(ctx, l, b) }})
	if err != nil {
		return v, err
	}
	if v, err = m.catchUp(ctx, job, v, l, from); err != nil {
		return v, err
	}
	return v, run(ctx, job, m.admitHeld(v))
}

// restore opens the guest's vsock end, then has the hypervisor go on from the snapshot.
func (m *Manager) restore(ctx context.Context, l *live, b feature.Blueprint, from vm.Snapshot) error {
	guest, err := m.guests.Restored(b.Machine.Dir, func(e GuestEvent) { m.guestEvent(l, nil, e) })
	if err != nil {
		return err
	}
	proc, err := m.hyper.Restore(ctx, b.Machine, from, func(line string) { m.consoleLine(l, line) })
	if err != nil {
		return errors.Join(err, guest.Close())
	}
	l.begin(guest, proc)
	return nil
}

// identify makes the guest the machine that it is to be, and waits until it says so itself.
func (m *Manager) identify(ctx context.Context, l *live, b feature.Blueprint) error {
	if err := m.adoptIdentity(ctx, l, b.Guest); err != nil {
		return err
	}
	return m.awaitReady(ctx, l, b)
}

// adoptIdentity asks the agent, and stops waiting for it where its hypervisor ends.
func (m *Manager) adoptIdentity(ctx context.Context, l *live, config agentproto.GuestConfig) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := make(chan error, 1)
	go func() { asked <- l.agent().Adopt(ctx, config) }()
	select {
	case err := <-asked:
		return err
	case <-l.gone:
		cancel()
		return errors.Join(fault.New(fault.GuestFailed, "the guest ended as it was to go on"), <-asked)
	}
}

// catchUp gives a guest what the VM has beyond the snapshot: larger disks.
func (m *Manager) catchUp(ctx context.Context, job *op.Job, v vm.VM, l *live, from snapshot.Manifest) (vm.VM, error) {
	c := feature.Change{Was: v.Clone(), Is: v, Guest: l.agent()}
	c.Was.Spec = from.VM.Spec
	for _, s := range m.settings() {
		if s.Apply == nil || s.Get(c.Was) == s.Get(c.Is) {
			continue
		}
		later, err := m.apply(ctx, job, alterStep{s, c.Is}, c)
		if err != nil {
			return v, err
		}
		v.Awaits(s.Key, later != "")
	}
	return v, nil
}

// upHeld lists the steps of a start, for a guest that is not to be heard yet. provisioned is as in up.
func (m *Manager) upHeld(v vm.VM, provisioned bool) group {
	var g group
	for _, f := range m.features {
		u, ok := f.(feature.Upper)
		if _, p := f.(feature.Provisioner); !ok || p && provisioned {
			continue
		}
		up := u.Up
		if h, ok := f.(feature.Holder); ok {
			up = h.UpHeld
		}
		g = append(g, step{f.Name(), func(ctx context.Context, report feature.Report) error { return up(ctx, v, report) }})
	}
	return g
}

// admitHeld lists the steps that let it be heard.
func (m *Manager) admitHeld(v vm.VM) group {
	var g group
	for _, f := range m.features {
		if h, ok := f.(feature.Holder); ok {
			g = append(g, step{f.Name(), func(ctx context.Context, report feature.Report) error { return h.Admit(ctx, v, report) }})
		}
	}
	return g
}

// startOver removes what a try has made of a new VM. What it may hold stays recorded.
func (m *Manager) startOver(ctx context.Context, v vm.VM) error {
	m.release(v.ID)
	records, err := m.store.Records(ctx, v.ID)
	if err != nil {
		return err
	}
	if err := m.takeDown(ctx, records); err != nil {
		return err
	}
	return m.dirs.Remove(v.ID)
}

// WarmRequest asks for a golden snapshot, for creates of this image with these vCPUs and this much memory. Zero values
// take the defaults.
type WarmRequest struct {
	Image  string
	VCPU   int
	Memory int64 // bytes
}

// WarmImage begins to prepare a golden snapshot, unless it is there or under way.
func (m *Manager) WarmImage(ctx context.Context, caller vm.Caller, r WarmRequest) (op.Operation, error) {
	m.choosing.RLock()
	defer m.choosing.RUnlock()
	img, err := m.FindImage(orDefault(r.Image, m.Defaults.Image))
	if err != nil {
		return op.Operation{}, fault.From(err).InOp("warm image", r.Image)
	}
	o, err := m.warmImage(ctx, caller, r, img)
	if err != nil {
		return o, fault.From(err).InOp("warm image", img.Name)
	}
	return o, nil
}

func (m *Manager) warmImage(ctx context.Context, caller vm.Caller, r WarmRequest, img image.Manifest) (op.Operation, error) {
	v, err := m.template(ctx, r, img)
	if err != nil {
		return op.Operation{}, err
	}
	frozen, err := m.frozen(ctx, m.plan(v, img))
	if err != nil {
		return op.Operation{}, err
	}
	o := newOperation(KindWarm, v, caller.UID)
	o.Subject, o.Name = img.Name, img.Name
	if _, err := m.Snaps.Open(filepath.Join(m.layout.Golden(), frozen.Key())); err == nil {
		return m.done(ctx, o)
	}
	if !m.begins(frozen.Key()) {
		return op.Operation{}, fault.New(fault.InUse, "that is under way").WithHint("follow it: `banger op list`")
	}
	v, o, unlock, err := m.intendHolding(ctx, v, img, o, v.Spec.Memory)
	if err != nil {
		m.ends(frozen.Key())
		return op.Operation{}, err
	}
	return m.spawnHolding(o, v.ID, unlock, func(ctx context.Context, job *op.Job) error {
		defer m.ends(frozen.Key())
		return m.warm(ctx, job, v, frozen)
	}), nil
}

// done is an operation that had nothing to do.
func (m *Manager) done(ctx context.Context, o op.Operation) (op.Operation, error) {
	job := m.Tracker.Begin(o, func() {})
	o = job.Snapshot().Finished(nil)
	err := m.store.SaveOperation(ctx, o)
	job.Finish(err)
	return job.Snapshot(), err
}

// begins notes that a golden snapshot is being taken; false where it is already.
func (m *Manager) begins(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.warming[key] {
		return false
	}
	m.warming[key] = true
	return true
}

func (m *Manager) ends(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.warming, key)
}

// template is the VM of which a golden snapshot is taken. It has disks of the size that most VMs have: they can grow
// from there, and not shrink.
func (m *Manager) template(ctx context.Context, r WarmRequest, img image.Manifest) (vm.VM, error) {
	v, err := m.draft(ctx, vm.Caller{}, CreateRequest{Spec: vm.Spec{VCPU: r.VCPU, Memory: r.Memory}}, img)
	v.Name, v.Owner, v.Template = "golden-"+string(v.ID), reconcile.Nobody, true
	v.Access.AuthorizedKeys = []string{v.Access.HostKey} // for the rehearsal; whoever goes on from here forgets it
	return v, err
}

// warm boots a template, catches it once it has nothing more to do, and makes it go away.
func (m *Manager) warm(ctx context.Context, job *op.Job, v vm.VM, frozen snapshot.Frozen) error {
	dir := filepath.Join(m.layout.Golden(), frozen.Key())
	err := m.capture(ctx, job, v, frozen, dir)
	if err != nil {
		err = m.keptLogs(v, job, m.explain(v, err))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), undoBudget)
	defer cancel()
	if err != nil {
		err = errors.Join(err, m.Snaps.Remove(dir))
		return errors.Join(err, m.erase(ctx, v, m.failed(job, err)))
	}
	if err := run(ctx, job, group{{"removal", func(ctx context.Context, _ feature.Report) error { return m.erase(ctx, v, nil) }}}); err != nil {
		return err
	}
	m.supersede(frozen)
	m.healSeed(v.Image)
	if err := m.store.SaveOperation(ctx, *ending(job)); err != nil {
		return err
	}
	m.watch.run(func() { // nobody waits for it, and it reads all of the memory
		if err := m.Snaps.Verify(m.ctx, dir); err != nil && m.ctx.Err() == nil {
			m.log.Error("verify a golden snapshot", "dir", dir, "error", err)
		}
	})
	return nil
}

// capture takes the golden snapshot.
func (m *Manager) capture(ctx context.Context, job *op.Job, v vm.VM, frozen snapshot.Frozen, dir string) error {
	b, err := m.blueprint(v)
	if err != nil {
		return err
	}
	// It never comes onto the network: nobody is to hear of a machine that is none.
	if err := m.furnish(ctx, job, v, "", m.upHeld(v, true)); err != nil {
		return err
	}
	v, l, err := m.bootGuest(ctx, job, v, b)
	if err != nil {
		return err
	}
	quiet := step{"quiet", func(ctx context.Context, _ feature.Report) error { return m.quiet(ctx, l) }}
	if err := run(ctx, job, m.rehearse(v, l), group{quiet}, group{m.emptied(dir)}); err != nil {
		return err
	}
	if err := m.still(ctx, job, v, l, dir); err != nil {
		return err
	}
	seal := step{"seal", func(ctx context.Context, _ feature.Report) error {
		return m.Snaps.Seal(ctx, dir, snapshot.Manifest{Name: frozen.Key(), Created: time.Now(), Frozen: frozen, VM: v})
	}}
	return run(ctx, job, group{seal})
}

// rehearseBudget bounds what a template is made to do before it is caught.
const rehearseBudget = time.Minute

// rehearse lists the steps that make a template do what its VMs' users will do first. One that cannot is no worse a
// template for it.
func (m *Manager) rehearse(v vm.VM, l *live) group {
	var g group
	for _, f := range m.features {
		r, ok := f.(feature.Rehearser)
		if !ok {
			continue
		}
		g = append(g, step{"rehearse " + f.Name(), func(ctx context.Context, report feature.Report) error {
			ctx, cancel := context.WithTimeout(ctx, rehearseBudget)
			defer cancel()
			if err := r.Rehearse(ctx, v, l.agent().SSH); err != nil {
				report("left out: " + err.Error())
				m.log.Warn("a template's rehearsal", "feature", f.Name(), "error", err)
			}
			return nil
		}})
	}
	return g
}

// still has a guest fall silent and stand still, and takes a snapshot of it into a directory. The guest stands still
// when this returns. The disks come after the memory: what the guest had asked of them may be written until then, and
// then is what its memory still waits for.
func (m *Manager) still(ctx context.Context, job *op.Job, v vm.VM, l *live, dir string) error {
	hold := step{"hold", func(ctx context.Context, _ feature.Report) error { return l.agent().Hold(ctx) }}
	pause := step{"pause", func(ctx context.Context, _ feature.Report) error {
		l.stands(true) // before it does, or its silence would be taken for a halt
		return m.hyper.Pause(ctx, v.ID)
	}}
	memory := step{"snapshot", func(ctx context.Context, _ feature.Report) error { return m.hyper.Snapshot(ctx, v.ID, files(dir)) }}
	return run(ctx, job, group{hold}, group{pause}, group{memory}, m.save(v, dir))
}

// save lists the steps by which a VM's disks are copied into a snapshot.
func (m *Manager) save(v vm.VM, to string) group {
	var g group
	for _, f := range m.features {
		if s, ok := f.(feature.Saver); ok {
			g = append(g, step{f.Name(), func(ctx context.Context, report feature.Report) error { return s.Save(ctx, v, to, report) }})
		}
	}
	return g
}

// A guest has settled once it uses at most this part of one processor's time, for so many intervals in a row: udev's workers
// end after three idle seconds. Were they caught, they would end in every guest that goes on from there, while it is waited for.
const (
	quietShare = 10
	quietLooks = 5
)

// quiet waits until a guest has nothing more to do of what its boot had begun, for a bounded time: one that is never
// quiet is caught as it is.
func (m *Manager) quiet(ctx context.Context, l *live) error {
	timeout := time.After(m.QuietTimeout)
	tick := time.NewTicker(m.HaltInterval)
	defer tick.Stop()
	last, err := m.hyper.CPUTime(l.process())
	for looks := 0; err == nil && looks < quietLooks; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.gone:
			return fault.New(fault.GuestFailed, "the guest ended as it was to settle")
		case <-timeout:
			return nil
		case <-tick.C:
		}
		before := last
		last, err = m.hyper.CPUTime(l.process())
		if looks++; last-before >= m.HaltInterval/quietShare {
			looks = 0
		}
	}
	return err
}

// supersede removes golden snapshots that were of the same but for what has changed of the host or of banger: nothing
// will find them again. A VM that goes on from one keeps its memory.
func (m *Manager) supersede(by snapshot.Frozen) {
	m.dropGolden(func(name string, f snapshot.Frozen) bool {
		return name != by.Key() && f.Image == by.Image && f.VCPU == by.VCPU && f.Memory == by.Memory
	})
}

func (m *Manager) dropGolden(drop func(name string, f snapshot.Frozen) bool) {
	names, err := m.Snaps.List(m.layout.Golden())
	for _, name := range names {
		dir := filepath.Join(m.layout.Golden(), name)
		if s, oerr := m.Snaps.Open(dir); oerr != nil && !fault.Is(oerr, fault.Corrupt) || !drop(name, s.Frozen) {
			continue
		}
		err = errors.Join(err, m.Snaps.Remove(dir))
	}
	if err != nil {
		m.log.Error("remove golden snapshots", "error", err)
	}
}

// warmLater prepares a golden snapshot like the VM that was just booted, once that VM has settled. What hinders it is
// logged: nobody has asked for it.
func (m *Manager) warmLater(v vm.VM) {
	l := m.liveOf(v.ID)
	if l == nil {
		return
	}
	m.watch.run(func() {
		if m.quiet(m.ctx, l) != nil || m.ctx.Err() != nil {
			return
		}
		r := WarmRequest{Image: v.Image.ID, VCPU: v.Spec.VCPU, Memory: v.Spec.Memory}
		if _, err := m.WarmImage(m.ctx, vm.Caller{UID: v.Owner}, r); err != nil && !fault.Is(err, fault.InUse) {
			m.log.Info("no golden snapshot is prepared", "image", v.Image.Name, "error", err)
		}
	})
}
