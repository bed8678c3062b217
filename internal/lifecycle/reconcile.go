package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/reconcile"
	"banger/internal/vm"
)

// Mended is a difference between the store and the host, and what came of it.
type Mended struct {
	reconcile.Finding
	Err error // why it could not be mended
}

// reconcileInterval is how often store and host are compared.
const reconcileInterval = time.Minute

// mendsAtOnce is how many VMs are dealt with side by side.
const mendsAtOnce = 16

// mendsOfOne bounds how often one VM is looked at again after something about it was mended.
const mendsOfOne = 5

// Recover brings what the store says in line with what the kernel says, after the daemon was restarted: it takes
// running VMs back, finishes or undoes what was interrupted, and settles VMs that ended meanwhile. It must return
// before the first verb. From then on the two are compared every minute.
//
// What cannot be mended keeps nothing else from it: it is logged, and tried again.
func (m *Manager) Recover(ctx context.Context) error {
	if _, err := m.Reconcile(ctx, true); err != nil {
		return err
	}
	all, err := m.store.VMs(ctx)
	if err != nil {
		return err
	}
	m.sweepSnapshots(all)
	for _, v := range all {
		m.keepUp(v.ID) // it may have been due when the last daemon ended
	}
	m.watch.run(m.sweep)
	m.watch.run(m.compare)
	return nil
}

// sweepSnapshots removes what interrupted snapshots have left.
func (m *Manager) sweepSnapshots(all []vm.VM) {
	dirs := []string{m.layout.Golden(), m.layout.Forks()}
	for _, v := range all {
		dirs = append(dirs, m.layout.Checkpoints(v.ID))
	}
	for _, dir := range dirs {
		if err := m.Snaps.Sweep(dir); err != nil {
			m.log.Error("remove what interrupted snapshots left", "dir", dir, "error", err)
		}
	}
}

// compare reconciles from time to time.
func (m *Manager) compare() {
	tick := time.NewTicker(reconcileInterval)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := m.Reconcile(m.ctx, true); err != nil && m.ctx.Err() == nil {
			m.log.Error("compare the store with the host", "error", err)
		}
	}
}

// Reconcile compares the store with the host and, where asked, mends what differs. A VM that a verb is dealing with is
// left to that.
func (m *Manager) Reconcile(ctx context.Context, mend bool) ([]Mended, error) {
	found, err := m.found(ctx) // before the records: what is made from here on is recorded already
	all, lost := m.store.VMs(ctx)
	if lost != nil {
		return nil, lost
	}
	var out []Mended
	if err != nil {
		out = append(out, m.mended(reconcile.Finding{Kind: reconcile.Orphan, Owner: reconcile.Nobody, Subject: "devices of this instance", Why: "they cannot be listed"}, err))
	}
	out = append(out, m.reconcileVMs(ctx, all, mend)...)
	strangers, adoptable, err := m.strangers(ctx)
	if err != nil {
		return out, err
	}
	orphans, err := m.orphans(ctx, all, found, adoptable, mend)
	return slices.Concat(out, orphans, strangers), err
}

// Repair is Reconcile for whoever asks for it, who is told of what is his or nobody's.
func (m *Manager) Repair(ctx context.Context, caller vm.Caller, mend bool) ([]Mended, error) {
	all, err := m.Reconcile(ctx, mend)
	return slices.DeleteFunc(all, func(f Mended) bool { return f.Owner != reconcile.Nobody && !caller.Sees(f.Owner) }), err
}

// found lists what there is on the host of this instance, as the records that would name it.
func (m *Manager) found(ctx context.Context) ([]vm.Record, error) {
	running, err := m.hyper.Found(ctx)
	errs := []error{err}
	var all []vm.Record
	for _, id := range running {
		all = append(all, m.processRecord(id))
	}
	for _, f := range m.features {
		if finder, ok := f.(feature.Finder); ok {
			some, err := finder.Find(ctx)
			errs, all = append(errs, err), append(all, some...)
		}
	}
	return all, errors.Join(errs...)
}

func (m *Manager) reconcileVMs(ctx context.Context, all []vm.VM, mend bool) []Mended {
	var mu sync.Mutex
	var out []Mended
	var eg errgroup.Group
	eg.SetLimit(mendsAtOnce)
	for _, v := range all {
		unlock, free := m.locks.tryLock(v.ID)
		if !free {
			continue
		}
		eg.Go(func() error {
			defer unlock()
			some := m.reconcileVM(ctx, v.ID, mend)
			mu.Lock()
			defer mu.Unlock()
			out = append(out, some...)
			return nil
		})
	}
	_ = eg.Wait() // none of them fails
	slices.SortStableFunc(out, func(a, b Mended) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// reconcileVM deals with a VM whose lock the caller holds.
func (m *Manager) reconcileVM(ctx context.Context, id vm.ID, mend bool) (out []Mended) {
	defer func() {
		if mend && len(out) > 0 {
			m.keepUp(id)
		}
	}()
	for range mendsOfOne {
		v, err := m.reload(ctx, id)
		if err != nil {
			return out // it has gone meanwhile, or the store says so to everybody
		}
		seen, err := m.seen(ctx, v)
		if err != nil {
			return append(out, m.mended(reconcile.Finding{VM: id, Name: v.Name, Owner: v.Owner, Subject: "VM " + v.Name, Why: "it cannot be looked at"}, err))
		}
		f, wrong := reconcile.VM(v, seen)
		if !wrong {
			if mend && seen.Held && !seen.Gone {
				m.recoup(ctx, v)
			}
			return out
		}
		if f.Repair == "" {
			return append(out, m.mended(f, nil))
		}
		if !mend {
			return append(out, Mended{Finding: f})
		}
		begun, err := m.mend(ctx, v, f)
		out = append(out, m.mended(f, err))
		if begun || err != nil {
			return out
		}
	}
	return out
}

// seen looks at a VM.
func (m *Manager) seen(ctx context.Context, v vm.VM) (reconcile.Seen, error) {
	s := reconcile.Seen{BootID: m.BootID, Alive: v.Process != nil && m.hyper.Alive(*v.Process)}
	if l := m.liveOf(v.ID); l != nil {
		s.Held = true
		select {
		case <-l.gone:
			s.Gone = true
		default:
		}
	}
	if s.Alive && v.State == vm.Running {
		if s.Ails = m.examine(ctx, v); s.Ails != nil && !fault.Is(s.Ails, fault.Corrupt) {
			return s, s.Ails
		}
	}
	records, err := m.store.Records(ctx, v.ID)
	if err != nil {
		return s, err
	}
	s.Recorded = len(records) > 0
	if s.Directory, err = m.dirs.Describe(string(v.ID)); err != nil || s.Directory != nil {
		return s, err
	}
	s.InTrash = slices.ContainsFunc(m.trashed(), func(t vm.VM) bool { return t.ID == v.ID })
	return s, nil
}

// examine asks the features whether what a VM that runs has still serves it.
func (m *Manager) examine(ctx context.Context, v vm.VM) error {
	for _, f := range m.features {
		if e, ok := f.(feature.Examiner); ok {
			if err := e.Examine(ctx, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// recoup has again what of a VM that runs went with the last daemon. What cannot be had is no reason for the VM to go: it
// is said once, and tried again.
func (m *Manager) recoup(ctx context.Context, v vm.VM) {
	for _, f := range m.features {
		r, ok := f.(feature.Resumer)
		if !ok {
			continue
		}
		err := r.Resume(ctx, v)
		subject, text := f.Name()+" of VM "+v.Name, fmt.Sprint(err)
		m.mu.Lock()
		again := m.told[subject] == text
		if m.told[subject] = text; err == nil {
			delete(m.told, subject)
		}
		m.mu.Unlock()
		if err != nil && !again {
			m.log.Warn("a VM that runs lacks something; it is tried again", "feature", f.Name(), "vm", v.Name, "id", v.ID, "error", err)
		}
	}
}

// mend does what a finding about a VM asks for, or begins an operation that will. The VM's lock is held.
func (m *Manager) mend(ctx context.Context, v vm.VM, f reconcile.Finding) (begun bool, err error) {
	switch f.Kind {
	case reconcile.Outdated:
		f.As.Lease = m.onHost(v.ID, f.As.Lease)
		records := m.records(f.As)
		if f.As.Process == nil {
			records = lasting(records)
		}
		return false, m.store.Commit(ctx, vm.Change{VM: f.As, Hold: records})
	case reconcile.Unrecorded:
		records := m.records(v)
		if v.State == vm.Stopped || v.State == vm.Crashed {
			records = lasting(records)
		}
		return false, m.store.Commit(ctx, vm.Change{VM: v, Hold: records})
	case reconcile.Interrupted:
		if v.State == vm.Stopping {
			m.finishStop(v)
			return true, nil
		}
		return false, m.finish(ctx, v)
	case reconcile.Adrift:
		return false, m.reattach(ctx, v)
	case reconcile.Ended:
		if l := m.liveOf(v.ID); l != nil {
			m.settle(v.ID, l)
			return true, nil
		}
		if f.As.State == vm.Crashed {
			f.As = m.crashed(f.As, false)
		}
		return false, m.rest(f.As, nil)
	case reconcile.Ailing:
		return false, m.commit(ctx, vm.Change{VM: f.As})
	case reconcile.Undescribed:
		return false, m.dirs.Write(v)
	case reconcile.Trashed:
		records, err := m.store.Records(ctx, v.ID)
		if err == nil {
			err = m.takeDown(ctx, records)
		}
		if err != nil {
			return false, err
		}
		return false, m.store.Commit(ctx, vm.Change{VM: v, Remove: true})
	case reconcile.Orphan, reconcile.Unknown, reconcile.Bodiless: // not about a VM, or not ours to mend
	}
	return false, nil
}

// records is what a VM holds while it runs. Its image may be gone: no record depends on it.
func (m *Manager) records(v vm.VM) []vm.Record {
	return m.plan(v, image.Manifest{}).Records
}

// finish brings a VM out of a state that an interrupted verb left it in.
func (m *Manager) finish(ctx context.Context, v vm.VM) error {
	switch v.State {
	case vm.Creating, vm.Deleting:
		return m.erase(ctx, v, nil)
	case vm.Restoring:
		return m.finishRestore(ctx, v, nil)
	default:
		v.State, v.Reason = vm.Stopped, "its start was interrupted by the daemon's end"
		return m.rest(unwanted(v), nil)
	}
}

// unknown lists the directories that the database does not know: those that describe themselves, and others.
func (m *Manager) unknown(ctx context.Context) (described, unread []reconcile.Directory, err error) {
	names, err := m.dirs.List()
	if err != nil {
		return nil, nil, err
	}
	all, err := m.store.VMs(ctx) // after the directories: one that is made later is nobody's surprise
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if slices.ContainsFunc(all, func(v vm.VM) bool { return string(v.ID) == name }) {
			continue
		}
		d, err := m.dirs.Describe(name)
		switch {
		case err != nil:
			return nil, nil, err
		case d == nil: // it has been deleted meanwhile
		case d.Err != nil:
			unread = append(unread, *d)
		default:
			described = append(described, *d)
		}
	}
	return described, unread, nil
}

// strangers tells of the directories that the database does not know, and lists what the VMs in them hold or would hold.
func (m *Manager) strangers(ctx context.Context) (out []Mended, adoptable []vm.Record, err error) {
	described, unread, err := m.unknown(ctx)
	for _, d := range described {
		adoptable = append(adoptable, m.records(d.VM)...)
		out = append(out, m.mended(reconcile.Stranger(d, d.VM.Process != nil && m.hyper.Alive(*d.VM.Process)), nil))
	}
	for _, d := range unread {
		out = append(out, m.mended(reconcile.Stranger(d, false), nil))
	}
	return out, adoptable, err
}

// orphans removes what nobody holds.
func (m *Manager) orphans(ctx context.Context, all []vm.VM, found, adoptable []vm.Record, mend bool) ([]Mended, error) {
	if len(found) == 0 {
		return nil, nil
	}
	records, err := m.store.Records(ctx, "")
	if err != nil {
		return nil, err
	}
	var out []Mended
	for _, f := range reconcile.Orphans(found, records, adoptable) {
		if some, ok := m.orphan(ctx, all, f, mend); ok {
			out = append(out, some)
		}
	}
	return out, nil
}

// orphan removes one, unless a verb has it. Whose it may be, and whether it is there, is asked again once nobody can
// change that: a VM may have been started or stopped since it was listed.
func (m *Manager) orphan(ctx context.Context, all []vm.VM, f reconcile.Finding, mend bool) (Mended, bool) {
	for _, v := range all {
		if !slices.ContainsFunc(m.records(v), func(r vm.Record) bool { return r.Kind == f.Record.Kind && r.Name == f.Record.Name }) {
			continue
		}
		unlock, free := m.locks.tryLock(v.ID)
		if !free {
			return Mended{}, false
		}
		defer unlock()
		now, err := m.store.Records(ctx, v.ID)
		if err != nil {
			return m.mended(f, err), true
		}
		if len(reconcile.Orphans([]vm.Record{f.Record}, now, nil)) == 0 {
			return Mended{}, false
		}
	}
	now, err := m.found(ctx)
	if err == nil && !slices.Contains(now, f.Record) {
		return Mended{}, false // whoever had it has removed it
	}
	if err != nil || !mend {
		return Mended{f, err}, true
	}
	return m.mended(f, m.takeDown(ctx, []vm.Record{f.Record})), true
}

// mended logs what came of a finding: what repeats itself every minute, once.
func (m *Manager) mended(f reconcile.Finding, err error) Mended {
	text := fmt.Sprint(f.Why, err)
	m.mu.Lock()
	again := m.told[f.Subject] == text
	if m.told[f.Subject] = text; err == nil && f.Repair != "" {
		delete(m.told, f.Subject)
	}
	m.mu.Unlock()
	switch {
	case err == nil && f.Repair != "":
		m.log.Info("reconciled", "kind", f.Kind, "subject", f.Subject, "id", f.VM, "why", f.Why, "done", f.Repair)
	case again:
	case err != nil:
		m.log.Error("reconcile", "kind", f.Kind, "subject", f.Subject, "id", f.VM, "why", f.Why, "error", err)
	default:
		m.log.Warn("reconcile: this is its user's to mend", "kind", f.Kind, "subject", f.Subject, "id", f.VM, "why", f.Why, "hint", f.Hint)
	}
	return Mended{f, err}
}

// reattach takes a running VM back.
func (m *Manager) reattach(ctx context.Context, v vm.VM) error {
	l := newLive()
	// It has booted: the config, which holds secrets, is not given out again.
	guest, err := m.guests.Open(m.layout.Jail(v.ID), nil, func(e GuestEvent) { m.guestEvent(l, nil, e) })
	if err != nil {
		return err
	}
	l.begin(guest, *v.Process)
	l.noted = v.State == vm.Paused
	l.serves = v.State == vm.Running || v.State == vm.Paused
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
	return nil
}

// finishStop goes on with a stop that was cut short, in order: to kill the VM would lose what its guest has not written yet.
func (m *Manager) finishStop(v vm.VM) {
	m.spawn(newOperation(KindStop, v, v.Owner), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil || v.State != vm.Stopping {
			return err
		}
		return m.bringDown(ctx, job, v, m.StopTimeout, ending)
	})
}
