package bench

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/feature/disk"
	"banger/internal/feature/identity"
	"banger/internal/feature/nic"
	"banger/internal/feature/sshaccess"
	"banger/internal/guest"
	"banger/internal/host/block"
	"banger/internal/host/link"
	"banger/internal/image"
	"banger/internal/imagebuild"
	"banger/internal/lab/scripts"
	"banger/internal/op"
	"banger/internal/store"
	"banger/internal/vm"
)

// bareTime bounds a bare boot.
const bareTime = 2 * time.Minute

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
	for _, f := range []feature.Feature{disk.Root(layout, nil, nil), disk.Work(layout, nil, nil), &nic.Feature{}, identity.Feature{}, sshaccess.Feature{}} {
		f.Contribute(v, &b)
	}
	if img.Init != "" {
		b.Guest.Init = []string{img.Init}
	}
	return bare{work: work, layout: layout, links: link.New(tag, 0), vm: v, config: b.Guest}, nil
}

// boot boots once.
func (b bare) boot(ctx context.Context) (took Bare, err error) {
	ctx, cancel := context.WithTimeout(ctx, bareTime)
	defer cancel()
	dir, err := os.MkdirTemp(b.work, "bare-")
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := b.furnish(ctx, dir); err != nil {
		return took, err
	}
	if err := b.links.Prepare(ctx, b.vm.Lease); err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, b.links.Detach(context.WithoutCancel(ctx), b.vm.Lease.TAP)) }()
	if err := b.links.Admit(ctx, b.vm.Lease.TAP); err != nil {
		return took, err
	}
	w := &witness{ready: make(chan readiness, 1)}
	g, err := guest.Open(dir, func() agentproto.GuestConfig { return b.config }, w.hear, slog.New(slog.DiscardHandler))
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	return b.execute(ctx, dir, w.ready)
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

// furnish fills the directory as the VM's was filled: the same kernel, initrd and configuration, and
// fresh clones of the same disks.
func (b bare) furnish(ctx context.Context, dir string) error {
	for _, name := range []string{vm.FileKernel, vm.FileInitrd, fileConfig} {
		if err := os.Link(filepath.Join(b.layout.Jail(b.vm.ID), name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	from := b.layout.Image(b.vm.Image.ID)
	_, root := block.Disks{}.Clone(ctx, filepath.Join(from, image.FileRoot), filepath.Join(dir, vm.FileRootDisk), b.vm.Spec.RootDisk)
	_, work := block.Disks{}.Clone(ctx, filepath.Join(from, image.FileWorkSeed), filepath.Join(dir, vm.FileWorkDisk), b.vm.Spec.WorkDisk)
	return errors.Join(root, work)
}

// execute runs Firecracker until the guest is ready.
func (b bare) execute(ctx context.Context, dir string, ready <-chan readiness) (Bare, error) {
	console, err := os.Create(filepath.Join(dir, "console.log"))
	if err != nil {
		return Bare{}, err
	}
	defer console.Close()
	// With its API, as every VM needs it to be paused or asked: a thread that waits, but not for nothing.
	fc := exec.CommandContext(ctx, "firecracker", "--id", string(b.vm.ID), "--api-sock", vm.FileAPISocket, "--config-file", fileConfig)
	fc.Dir, fc.Stdout, fc.Stderr = dir, console, console
	begun := time.Now()
	if err := fc.Start(); err != nil {
		return Bare{}, err
	}
	var end error
	gone := make(chan struct{})
	go func() { defer close(gone); end = fc.Wait() }()
	select {
	case r := <-ready:
		_ = fc.Process.Kill() // nothing of this guest is to be kept; it may have ended by itself
		<-gone
		took := r.at.Sub(begun)
		return Bare{Ready: took, Stages: append([]op.Stage{{Name: stageHypervisor, Duration: took - r.clock, Done: true}}, r.stages...)}, nil
	case <-gone: // also when the time is over
	}
	if log := scripts.BrokenGuest(dir); log != "" {
		return Bare{}, errBroken
	}
	said, rerr := os.ReadFile(console.Name())
	return Bare{}, errors.Join(rerr, fault.New(fault.GuestFailed, "it ended before the guest was ready: %w", ended(end)).
		WithOp("boot bare", b.vm.Image.Name).WithDetail(string(said)))
}

// ended says how a process ended that ended too early.
func ended(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
