package bench

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/feature/disk"
	"banger/internal/feature/identity"
	"banger/internal/feature/nic"
	"banger/internal/feature/sshaccess"
	"banger/internal/guest"
	"banger/internal/host/block"
	"banger/internal/host/firecracker"
	"banger/internal/host/link"
	"banger/internal/image"
	"banger/internal/imagebuild"
	"banger/internal/lab/scripts"
	"banger/internal/op"
	"banger/internal/store"
	"banger/internal/vm"
)

// fileConfig is what the driver calls a machine's description.
const fileConfig = "firecracker.json"

// bare boots what banger booted as a VM, without banger: Firecracker, its configuration file, and
// somebody who answers the agent. It is the floor that a create is measured against.
type bare struct {
	work   string // directories of bare boots are made here, on the file system of the state directory
	layout vm.Layout
	links  *link.Links
	vm     vm.VM
	config agentproto.GuestConfig
}

// newBare takes a VM that is stopped as the pattern.
func newBare(layout vm.Layout, tag vm.Tag, id vm.ID, work string) (bare, error) {
	v, err := store.ReadVM(layout.VM(id))
	if err != nil {
		return bare{}, err
	}
	catalog := imagebuild.Catalog{Dir: layout.Images(), Damaged: func(string, error) {}}
	all, err := catalog.List()
	if err != nil {
		return bare{}, err
	}
	img, err := image.Select(all, v.Image.ID)
	if err != nil {
		return bare{}, err
	}
	// The machine is read from the driver's file; only what the guest is told has to be derived again.
	b := feature.Blueprint{Image: img}
	for _, f := range []feature.Feature{disk.Root(layout, tag, disk.Choice{}, block.Disks{}, nil, nil), disk.Work(layout, block.Disks{}, nil, nil), &nic.Feature{}, identity.Feature{}, sshaccess.Feature{}} {
		f.Contribute(v, &b)
	}
	if img.Init != "" {
		b.Guest.Init = []string{img.Init}
	}
	return bare{work: work, layout: layout, links: link.New(tag, 0), vm: v, config: b.Guest}, nil
}

// boot boots once, and has Firecracker write a snapshot of what it booted.
func (b bare) boot(ctx context.Context) (took Bare, err error) {
	ctx, cancel := context.WithTimeout(ctx, BootTime)
	defer cancel()
	m, err := b.machine(ctx)
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, m.end(context.WithoutCancel(ctx))) }()
	if err := m.begin(ctx); err != nil {
		return took, err
	}
	if took, err = m.await(); err != nil {
		return took, err
	}
	took.Snapshot, err = m.snapshot(ctx)
	return took, err
}

// bootAll boots all at once, and returns how long it took until the last was ready. Those that are sooner run on
// meanwhile, as VMs do.
func bootAll(ctx context.Context, all []bare) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, BootTime)
	defer cancel()
	machines := make([]*machine, len(all))
	for i, b := range all {
		if machines[i], err = b.machine(ctx); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, machines[i].end(context.WithoutCancel(ctx))) }()
	}
	begun := time.Now()
	eg, ctx := errgroup.WithContext(ctx)
	for _, m := range machines {
		eg.Go(func() error {
			if err := m.begin(ctx); err != nil {
				return err
			}
			_, err := m.await()
			return err
		})
	}
	err = eg.Wait()
	return time.Since(begun), err
}

// machine is one that is booted bare. Everything that a boot needs is there before it begins.
type machine struct {
	bare
	state vm.Layout // of its own, with one VM
	ready chan readiness
	undo  []func(context.Context) error

	begun   time.Time
	console *os.File
	fc      *exec.Cmd
	gone    chan struct{} // closed when the process has ended; ended is why, then
	ended   error
}

func (b bare) machine(ctx context.Context) (m *machine, err error) {
	dir, err := os.MkdirTemp(b.work, "bare-")
	if err != nil {
		return nil, err
	}
	m = &machine{bare: b, state: vm.Layout{State: dir}, ready: make(chan readiness, 1), gone: make(chan struct{})}
	m.later(func(context.Context) error { return os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, m.end(context.WithoutCancel(ctx)))
		}
	}()
	jail := m.state.Jail(b.vm.ID)
	if err := os.MkdirAll(jail, 0o700); err != nil {
		return nil, err
	}
	if err := b.furnish(ctx, jail); err != nil {
		return nil, err
	}
	lease := b.vm.Lease
	lease.TAP = b.tap()
	if err := b.links.Prepare(ctx, lease); err != nil {
		return nil, err
	}
	m.later(func(ctx context.Context) error { return b.links.Detach(ctx, lease.TAP) })
	if err := b.links.Admit(ctx, lease.TAP); err != nil {
		return nil, err
	}
	w := &witness{ready: m.ready}
	g, err := guest.Open(jail, func() agentproto.GuestConfig { return b.config }, w.hear, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	m.later(func(context.Context) error { return g.Close() })
	return m, nil
}

func (m *machine) later(undo func(context.Context) error) { m.undo = append(m.undo, undo) }

// end removes all that there is of it, the last first.
func (m *machine) end(ctx context.Context) (err error) {
	for _, undo := range slices.Backward(m.undo) {
		err = errors.Join(err, undo(ctx))
	}
	return err
}

// begin starts Firecracker, which ends with ctx.
func (m *machine) begin(ctx context.Context) (err error) {
	jail := m.state.Jail(m.vm.ID)
	if m.console, err = os.Create(filepath.Join(jail, "console.log")); err != nil {
		return err
	}
	m.later(func(context.Context) error { return m.console.Close() })
	// With its API, as every VM needs it to be paused or asked: a thread that waits, but not for nothing.
	m.fc = exec.CommandContext(ctx, "firecracker", "--id", string(m.vm.ID), "--api-sock", vm.FileAPISocket, "--config-file", fileConfig)
	m.fc.Dir, m.fc.Stdout, m.fc.Stderr = jail, m.console, m.console
	m.begun = time.Now()
	if err := m.fc.Start(); err != nil {
		return err
	}
	go func() { defer close(m.gone); m.ended = m.fc.Wait() }()
	m.later(func(context.Context) error {
		_ = m.fc.Process.Kill() // nothing of this guest is to be kept; it may have ended by itself
		<-m.gone
		return nil
	})
	return nil
}

// await waits until the guest is ready.
func (m *machine) await() (Bare, error) {
	select {
	case r := <-m.ready:
		took := r.at.Sub(m.begun)
		return Bare{Ready: took, Stages: append([]op.Stage{{Name: stageHypervisor, Duration: took - r.clock, Done: true}}, r.stages...)}, nil
	case <-m.gone: // also when the time is over
	}
	if log := scripts.BrokenGuest(m.state.State); log != "" {
		return Bare{}, errBroken
	}
	said, rerr := os.ReadFile(m.console.Name())
	return Bare{}, errors.Join(rerr, fault.New(fault.GuestFailed, "it ended before the guest was ready: %w", ended(m.ended)).
		WithOp("boot bare", m.vm.Image.Name).WithDetail(string(said)))
}

// snapshot has the guest stand still, and returns how long Firecracker takes to write it to files.
func (m *machine) snapshot(ctx context.Context) (time.Duration, error) {
	d := firecracker.New("firecracker", m.state, nil, slog.New(slog.DiscardHandler))
	if err := d.Pause(ctx, m.vm.ID); err != nil {
		return 0, err
	}
	unix.Sync() // what the guest wrote is not to be written along
	begun := time.Now()
	err := d.Snapshot(ctx, m.vm.ID, vm.Snapshot{State: filepath.Join(m.state.State, "state"), Memory: filepath.Join(m.state.State, "memory")})
	return time.Since(begun), err
}

// readiness is an agent's Ready with what it had said before.
type readiness struct {
	at     time.Time
	clock  time.Duration // the guest's
	stages []op.Stage
}

// witness hears what an agent says of its guest's boot, one event at a time.
type witness struct {
	ready chan readiness // gets one, and must have room for it
	so    readiness
	told  bool
}

func (w *witness) hear(e guest.Event) {
	switch {
	case w.told:
	case e.Progress != nil:
		w.note("guest."+e.Progress.Stage, e.Progress.Uptime)
	case e.Ready != nil:
		w.so.at = time.Now()
		w.note(stageServices, e.Ready.Uptime)
		w.told = true
		w.ready <- w.so
	}
}

func (w *witness) note(stage string, at time.Duration) {
	w.so.stages = append(w.so.stages, op.Stage{Name: stage, Duration: at - w.so.clock, Done: true})
	w.so.clock = at
}

// tap names the TAP. The VM's own would be taken for one that nobody holds, and the daemon removes such.
func (b bare) tap() string { return "bench-" + string(b.vm.ID[:8]) }

// furnish fills the directory as the VM's was filled: the same kernel, initrd and configuration but for the TAP, and
// fresh clones of the same disks.
func (b bare) furnish(ctx context.Context, dir string) error {
	jail := b.layout.Jail(b.vm.ID)
	for _, name := range []string{vm.FileKernel, vm.FileInitrd} {
		if err := os.Link(filepath.Join(jail, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	config, err := os.ReadFile(filepath.Join(jail, fileConfig))
	if err != nil {
		return err
	}
	config = bytes.ReplaceAll(config, []byte(b.vm.Lease.TAP), []byte(b.tap()))
	if err := os.WriteFile(filepath.Join(dir, fileConfig), config, 0o600); err != nil {
		return err
	}
	from := b.layout.Image(b.vm.Image.ID)
	_, root := block.Disks{}.Clone(ctx, filepath.Join(from, image.FileRoot), filepath.Join(dir, vm.FileRootDisk), b.vm.Spec.RootDisk)
	_, work := block.Disks{}.Clone(ctx, filepath.Join(from, image.FileWorkSeed), filepath.Join(dir, vm.FileWorkDisk), b.vm.Spec.WorkDisk)
	return errors.Join(root, work)
}

// ended says how a process ended that ended too early.
func ended(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
