package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/snapshot"
	"banger/internal/vm"
)

// maxForks is how many VMs one operation makes at most.
const maxForks = 64

// rouseAfter is how long a VM that was forked is left silent at most, while its forks come up on the same processors.
const rouseAfter = 5 * time.Second

// ForkRequest asks for VMs that begin where another stands. Zero values take the defaults.
type ForkRequest struct {
	Name  string // of the one, or what the names of several begin with
	Count int
}

// Fork makes VMs of another one: of its disks, and of its memory where it runs. It stands still meanwhile for as long as
// its memory is written. Each fork is a machine of its own, with its own name, address and keys. Either all of them come
// up or none stays.
func (m *Manager) Fork(ctx context.Context, caller vm.Caller, selector string, r ForkRequest) (op.Operation, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	if err := forkable(v); err != nil {
		return op.Operation{}, err
	}
	names, err := m.forkNames(ctx, v, r)
	if err != nil {
		return op.Operation{}, fault.From(err).InOp("fork VM", v.Name)
	}
	return m.spawn(newOperation(KindFork, v, caller.UID), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil {
			return err
		}
		if err := forkable(v); err != nil {
			return err
		}
		return m.fork(ctx, job, v, names)
	}), nil
}

func forkable(v vm.VM) error {
	switch v.State {
	case vm.Running, vm.Stopped, vm.Crashed:
		return nil
	case vm.Paused:
		return isPaused(v, "fork VM")
	default:
		return fault.New(fault.WrongState, "it is %s", v.State).WithOp("fork VM", v.Name)
	}
}

// forkNames chooses the forks' names. Those that are not given are what VMs have no name of.
func (m *Manager) forkNames(ctx context.Context, v vm.VM, r ForkRequest) ([]string, error) {
	count := orDefault(r.Count, 1)
	if count < 1 || count > maxForks {
		return nil, fault.New(fault.Invalid, "%d forks: it can be 1 to %d at once", r.Count, maxForks)
	}
	if r.Name != "" && count == 1 {
		return []string{r.Name}, vm.CheckName(r.Name)
	}
	all, err := m.store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for n := 1; len(names) < count; n++ {
		name := fmt.Sprintf("%s-%d", orDefault(r.Name, v.Name), n)
		if err := vm.CheckName(name); err != nil {
			return nil, err
		}
		if r.Name != "" || !slices.ContainsFunc(all, func(o vm.VM) bool { return o.Name == name }) {
			names = append(names, name)
		}
	}
	return names, nil
}

// fork makes VMs of these names of the VM whose lock the caller holds.
func (m *Manager) fork(ctx context.Context, job *op.Job, v vm.VM, names []string) error {
	dir := filepath.Join(m.layout.Forks(), string(job.Snapshot().ID))
	forks, free, err := m.intendForks(ctx, job, v, names)
	defer free()
	if err == nil {
		rouse := sync.OnceFunc(func() { m.rouse(v) })
		defer rouse()
		err = m.expose(ctx, job, v, dir)
		defer time.AfterFunc(rouseAfter, rouse).Stop() // not at once: the forks are waited for
	}
	if err == nil {
		err = m.riseForks(ctx, job, v, forks, dir)
	}
	// What runs on has the memory mapped, and the disks are clones.
	if rerr := m.Snaps.Remove(dir); rerr != nil {
		m.log.Error("remove what was forked from; the daemon's next start does", "dir", dir, "error", rerr)
	}
	if err == nil {
		err = m.store.SaveOperation(ctx, *ending(job))
	}
	if err == nil {
		return nil
	}
	for _, f := range forks {
		if eerr := m.eraseAnyway(f, m.failed(job, err)); eerr != nil {
			m.log.Error("undo fork", "vm", f.Name, "id", f.ID, "error", eerr)
		}
	}
	return err
}

// intendForks commits that the forks are to be made. It returns those of which that is committed, whose turns it holds
// until free is called.
func (m *Manager) intendForks(ctx context.Context, job *op.Job, v vm.VM, names []string) (forks []vm.VM, free func(), err error) {
	var turns []func()
	free = func() {
		for _, end := range turns {
			end()
		}
	}
	m.choosing.RLock()
	defer m.choosing.RUnlock()
	img, err := m.imageOf(v)
	if err != nil {
		return nil, free, err
	}
	now, err := m.copied(v, m.layout.Jail(v.ID))
	if err != nil {
		return nil, free, err
	}
	if v.State == vm.Running {
		now += v.Holds().Memory
	}
	var warnings []string
	for _, name := range names {
		f, err := m.draft(ctx, vm.Caller{UID: v.Owner}, CreateRequest{
			Name: name, Labels: maps.Clone(v.Labels), Spec: shape(v), Timezone: v.Timezone, Locale: v.Locale,
			Restart: v.Restart, AuthorizedKeys: v.Access.AuthorizedKeys,
			rootBackend: orDefault(v.RootBackend, vm.RootReflink),
		}, img)
		if err != nil {
			return forks, free, err
		}
		f.Settings = maps.Clone(v.Settings)
		if err := m.sole(&f, func(feature.Setting) string { return "" }); err != nil {
			return forks, free, err
		}
		f, o, end, err := m.intendHolding(ctx, f, img, job.Snapshot(), now)
		if err != nil {
			return forks, free, err
		}
		turns = append(turns, end)
		warnings = o.Warnings // the last one's: it was admitted beside all others
		now = 0               // that is written once
		forks = append(forks, f)
		job.Makes(string(f.ID))
	}
	for _, w := range warnings {
		job.Warn(w)
	}
	return forks, free, nil
}

// shape is what a VM that goes on from another's memory must have: what its hypervisor was started with, and disks as
// large as they are.
func shape(v vm.VM) vm.Spec {
	s := v.Holds()
	s.RootDisk, s.WorkDisk = v.Spec.RootDisk, v.Spec.WorkDisk
	return s
}

// expose takes what a VM is into a directory: its disks, and its memory where it runs.
func (m *Manager) expose(ctx context.Context, job *op.Job, v vm.VM, dir string) error {
	if err := run(ctx, job, group{m.emptied(dir)}); err != nil {
		return err
	}
	if v.State != vm.Running {
		return run(ctx, job, m.save(v, dir))
	}
	l := m.liveOf(v.ID)
	if l == nil {
		return notHeld(v, "fork VM")
	}
	return m.catch(ctx, job, v, l, dir)
}

// emptied makes the directory of a snapshot.
func (m *Manager) emptied(dir string) step {
	return step{"snapshot directory", func(context.Context, feature.Report) error { return m.Snaps.Make(dir) }}
}

// catch takes a snapshot of a running guest into a directory. The guest goes on when this returns, however it went. It stood still,
// and is to be told the time, which ends its silence too; else it dials by itself after a while.
func (m *Manager) catch(ctx context.Context, job *op.Job, v vm.VM, l *live, dir string) error {
	l.turns(true, nil) // or who minds guests that stand still would resume it
	err := m.still(ctx, job, v, l, dir)
	if err != nil {
		err = m.explain(v, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), undoBudget)
	defer cancel()
	resume := step{"resume", func(ctx context.Context, _ feature.Report) error { return m.goesOn(ctx, v.ID, l) }}
	rerr := run(ctx, job, group{resume})
	if rerr == nil {
		l.stands(false)
	}
	l.turns(false, rerr)
	return errors.Join(err, rerr) // where it was not resumed it is by and by
}

// rouse tells a guest that stood still the time. Nobody waits for it.
func (m *Manager) rouse(v vm.VM) {
	if l := m.liveOf(v.ID); l != nil && v.State == vm.Running && !l.isPaused() {
		m.watch.run(func() { m.setClock(m.ctx, v.ID, l) })
	}
}

// goesOn has a guest that stands still go on, and does not give up at once: a hypervisor that is still writing a snapshot
// which was called off answers once it has.
func (m *Manager) goesOn(ctx context.Context, id vm.ID, l *live) error {
	for {
		err := m.hyper.Resume(ctx, id)
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		select {
		case <-l.gone:
			return err
		case <-ctx.Done():
			return err
		case <-time.After(m.HaltInterval):
		}
	}
}

// riseForks brings the forks up, side by side. What one of them failed of is told of that one.
func (m *Manager) riseForks(ctx context.Context, job *op.Job, v vm.VM, forks []vm.VM, dir string) error {
	from := snapshot.Manifest{VM: v, Created: time.Now()}
	from.VM.Spec = shape(v)
	eg, ctx := errgroup.WithContext(ctx)
	for _, f := range forks {
		eg.Go(func() error {
			if err := m.riseFork(ctx, job, f, from, dir); err != nil {
				err = m.keptLogs(f, job, m.explain(f, err))
				return fault.From(err).WithOp("fork VM "+v.Name+" as", f.Name)
			}
			return nil
		})
	}
	return eg.Wait()
}

func (m *Manager) riseFork(ctx context.Context, job *op.Job, f vm.VM, from snapshot.Manifest, dir string) error {
	b, err := m.blueprint(f)
	if err != nil {
		return err
	}
	if from.VM.State == vm.Running {
		if f, err = m.goOn(ctx, job, f, b, from, dir); err != nil {
			return err
		}
		return m.runs(ctx, f, nil)
	}
	if err := m.furnish(ctx, job, f, dir, m.up(f, true)); err != nil {
		return err
	}
	if f, _, err = m.bootGuest(ctx, job, f, b); err != nil {
		return err
	}
	return m.runs(ctx, f, nil)
}
