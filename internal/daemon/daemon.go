// Package daemon is bangerd's composition root: the one place that sees everything and joins it.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/agentproto"
	"banger/internal/boot"
	"banger/internal/config"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/feature/bootset"
	"banger/internal/feature/compute"
	"banger/internal/feature/disk"
	doorway "banger/internal/feature/door"
	"banger/internal/feature/identity"
	"banger/internal/feature/nic"
	"banger/internal/feature/restart"
	"banger/internal/feature/sshaccess"
	"banger/internal/guest"
	"banger/internal/host/block"
	"banger/internal/host/dm"
	"banger/internal/host/door"
	"banger/internal/host/exec"
	"banger/internal/host/firecracker"
	"banger/internal/host/firewall"
	"banger/internal/host/firewall/others"
	"banger/internal/host/forwarding"
	"banger/internal/host/handover"
	"banger/internal/host/kvm"
	"banger/internal/host/link"
	"banger/internal/host/proc"
	"banger/internal/imagebuild"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/server"
	"banger/internal/snapdir"
	"banger/internal/store"
	"banger/internal/vm"
	"banger/internal/vmdir"
)

// haltInterval is how often a guest that is going down is looked at: long enough that an idle vCPU
// has run its timer meanwhile, short enough that nobody waits for it.
const haltInterval = time.Second

// quietTimeout bounds the wait until a guest that was booted has settled. What it still does then, each VM that goes on
// from its snapshot does too.
const quietTimeout = time.Minute

// Daemon is one running bangerd.
type Daemon struct {
	cfg     config.Served
	layout  vm.Layout
	log     *slog.Logger
	started time.Time

	socket    *socket
	sockets   *handover.Sockets // all but that one
	listeners listeners
	wiring    *wiring
	store     *store.Store
	rebuilt   *store.Rebuilt // nil unless this daemon had to
	tag       vm.Tag
	subnet    *subnet
	links     *link.Links
	doors     *door.Doors
	gate      *gate
	noting    sync.Mutex // held to add to a VM's network log
	names     *names
	dirs      vmdir.Dirs
	driver    *firecracker.Driver
	kernels   *boot.Kernels
	images    *imagebuild.Builder
	tracker   *op.Tracker
	counts    *counts
	features  []feature.Feature
	manager   *lifecycle.Manager
	children  atomic.Int64  // programs run since start
	upgrade   chan struct{} // closed when a newer build is to be executed
	upgrading sync.Once
	handover  *os.File           // the listener, for the newer build
	handed    *handover.Handover // the other sockets, for it
	lock      *os.File
}

// Run serves until ctx ends, or until a newer build is to be executed in place: then it returns that.
// VMs run on either way.
func Run(ctx context.Context, cfg config.Served) error {
	d := &Daemon{cfg: cfg, layout: vm.Layout{State: cfg.StateDir}, started: time.Now(), upgrade: make(chan struct{})}
	if os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "it must run as root, which devices and cgroups need").WithOp("start", "bangerd").
			WithHint("run `sudo banger setup`, or start it with sudo")
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fault.System(err, "make state directory", cfg.StateDir)
	}
	closeLog, err := d.openLog()
	if err != nil {
		return err
	}
	defer closeLog()
	d.counts = newCounts()
	d.tracker = op.NewTracker(lifecycle.Journal(d.log), d.counts)
	if d.lock, err = acquire(filepath.Join(cfg.StateDir, "lock")); err != nil {
		return err
	}
	defer d.lock.Close()
	err = d.serve(ctx)
	if errors.Is(err, errUpgrade) {
		d.log.Info("daemon executes its newer build")
		err = reexec(d.handover, d.socket.ours, d.handed)
	}
	d.log.Info("daemon ends", "error", err)
	return err
}

func (d *Daemon) serve(ctx context.Context) (err error) {
	if d.socket, err = listen(ctx, d.cfg.Socket, d.cfg.Group); err != nil {
		return err
	}
	defer d.socket.Close()
	if d.sockets, err = handover.Take(); err != nil {
		return err
	}
	if err := d.compose(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.store.Close()) }()
	if err := d.store.Note(ctx, event.OfDaemon(event.DaemonStarted, buildString())); err != nil {
		d.log.Error("tell that the daemon started", "error", err) // a full disk keeps nobody from his VMs
	}
	defer d.serveNames(ctx)()
	defer d.serveDHCP(ctx)()
	// First, since what recovery goes on with are operations of this daemon.
	if err := d.store.FailInterrupted(ctx, lifecycle.Words); err != nil {
		return err
	}
	// Before that: what is taken back must find the rules that are wanted, also where they are of another build.
	guests, err := d.guests(ctx)
	if err != nil {
		return err
	}
	d.gate.begin(ctx, guests)
	if err := d.manager.Recover(ctx); err != nil {
		return err
	}
	d.gate.tidy(ctx)
	if err := errors.Join(d.images.Clean(), d.kernels.Clean(), d.dirs.SweepGoing()); err != nil {
		d.log.Warn("remove leftovers", "error", err)
	}
	return d.answer(ctx)
}

// answer serves the API until it is told to end, then lets go of the VMs.
func (d *Daemon) answer(ctx context.Context) error {
	srv := server.New(server.Config{Verbs: d.manager, Operations: operations{d}, Events: d.store, Daemon: d, Usage: d.keeper(), Network: d, Policy: d.cfg.Network, Layout: d.layout, Log: d.log})
	stop := d.keepClocks(ctx)
	leave := d.mindDisk(ctx)
	dry := d.keepSpares(ctx)
	open := d.keepGate(ctx)
	hide := d.serveMetrics(ctx)
	d.sockets.CloseRest() // whoever wants one that an older build left has it by now
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(d.socket) }()
	d.log.Info("daemon serves", "build", buildString(), "socket", d.cfg.Socket, "state", d.cfg.StateDir, "instance", d.tag, "subnet", d.subnet.now().Subnet, "activated", d.socket.inherited)
	notify("READY=1")
	var outcome error
	select {
	case <-ctx.Done():
	case <-d.upgrade:
		outcome = errUpgrade
	case outcome = <-failed:
	}
	if errors.Is(outcome, errUpgrade) {
		// systemd is told nothing: this process goes on.
		var err error
		if d.handover, err = d.socket.handOver(); err == nil {
			d.handed, err = d.sockets.HandOver()
		}
		if err != nil {
			outcome = err
		}
	} else {
		notify("STOPPING=1")
	}
	// From here on nothing new is taken in. Whoever connects to a listener that is handed over waits in
	// its queue for the next build.
	srv.SetKeepAlivesEnabled(false)
	_ = d.socket.Close() // closed already where serving on it failed
	var patience time.Duration
	if errors.Is(outcome, errUpgrade) {
		patience = doorDrain
		// A verb may have begun since none ran.
		late, cancel := context.WithTimeout(ctx, time.Minute)
		_ = d.manager.Idle(late) // what takes longer is called off
		cancel()
	}
	stop()
	leave()
	dry()
	open()
	hide()
	d.doors.Shut(patience)
	d.manager.Close()
	d.driver.Close()
	d.tellEnd(ctx, outcome)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(closing); err != nil {
		_ = srv.Close() // followers and log readers never end by themselves
	}
	if errors.Is(outcome, http.ErrServerClosed) {
		outcome = nil
	}
	return outcome
}

// tellEnd is the last news, before those who follow them are let go.
func (d *Daemon) tellEnd(ctx context.Context, outcome error) {
	reason := "it was told to"
	switch {
	case errors.Is(outcome, errUpgrade):
		reason = outcome.Error()
	case outcome != nil:
		reason = fault.From(outcome).Error()
	}
	if err := d.store.Note(context.WithoutCancel(ctx), event.OfDaemon(event.DaemonEnded, reason)); err != nil {
		d.log.Error("tell that the daemon ends", "error", err)
	}
}

// compose makes the parts and joins them.
func (d *Daemon) compose(ctx context.Context) error {
	var err error
	if d.store, d.rebuilt, err = store.OpenOrRebuild(ctx, d.cfg.StateDir, d.layout.VMs()); err != nil {
		return err
	}
	if r := d.rebuilt; r != nil {
		d.log.Warn("the database was made anew of what the VMs' directories say", "why", r.Why, "set_aside", r.SetAside, "vms", r.VMs)
		for _, left := range r.Left {
			d.log.Warn("a VM's directory was not taken in", "error", left)
		}
	}
	d.tag = d.store.Tag()
	groups, err := proc.OpenGroups(d.tag)
	if err != nil {
		return err
	}
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return err
	}
	d.links = link.New(d.tag, d.cfg.TAPPool)
	d.doors = door.New(d.sockets, func(ctx context.Context, id vm.ID, port int) (net.Conn, error) { return d.manager.Enter(ctx, id, port) }, d.log)
	d.gate = &gate{tables: firewall.New(d.tag), others: others.New(d.tag, exec.Runner{}, "/"), forwarding: forwarding.New(d.store), log: d.log}
	d.dirs = vmdir.Dirs{Layout: d.layout}
	d.subnet = &subnet{tag: d.tag, configured: d.cfg.Subnet, log: d.log, links: d.links, store: d.store}
	// What is wrong with it, or with Firecracker below, is preflight's to say to whoever wants a VM. Looking
	// now keeps the first of them from waiting.
	if _, err := d.subnet.Require(ctx); err != nil {
		d.log.Warn("no subnet for VMs", "error", err)
	}
	d.driver = firecracker.New(orDefault(d.cfg.FirecrackerBin, "firecracker"), d.layout, groups, d.log)
	d.kernels = &boot.Kernels{Layout: d.layout, Agent: d.agentPath()}
	d.images = &imagebuild.Builder{
		Catalog: &imagebuild.Catalog{Dir: d.layout.Images(), Damaged: func(dir string, err error) {
			d.log.Warn("an image cannot be used", "dir", dir, "error", err)
		}},
		Run:    d.run,
		Mirror: d.cfg.Mirror,
	}
	disks := block.Disks{}
	shares, err := block.Reflinks(d.cfg.StateDir)
	if err != nil {
		d.log.Warn("try whether files can share blocks", "error", err)
	}
	// Every feature of a VM, in the order in which its devices appear in the guest.
	d.features = []feature.Feature{
		&compute.Feature{Balloons: d.driver},
		disk.Root(d.layout, d.tag, disk.Choice{Wish: d.cfg.Storage.RootBackend.RootBackend, Shares: shares}, disks, d.driver, dm.New(d.tag)),
		disk.Work(d.layout, disks, d.driver, d.images),
		&doorway.Feature{Doors: d.doors, Fleet: d.store, Root: door.Root()},
		&nic.Feature{Links: d.links, Gate: d.gate, Subnet: d.subnet, Defaults: d.cfg.Network},
		&bootset.Feature{Layout: d.layout, Kernels: d.kernels, Args: boot.Args},
		identity.Feature{},
		restart.Feature{},
		sshaccess.Feature{},
	}
	d.manager = lifecycle.New(lifecycle.Config{
		Layout: d.layout, Tag: d.tag, Arch: runtime.GOARCH, BootID: self.BootID,
		Store: d.store, Images: d.images, Hyper: hypervisor{d.driver, d}, Guests: guests{d.log}, Dirs: d.dirs,
		Snaps: snapdir.Dirs{Sparse: disks.PunchZeros}, Freeze: d.freeze, Warm: !d.cfg.Warm.Off,
		Features: d.features,
		Capacity: capacity{d.cfg.StateDir, shares}, Meter: meter{}, Rules: rules(d.cfg), Refused: d.counts.refused,
		Network: d.subnet, Tracker: d.tracker, Log: d.log,
		Defaults: lifecycle.Defaults{
			Image: d.cfg.VM.Image, VCPU: d.cfg.VM.VCPU, Memory: d.cfg.VM.Memory, WorkDisk: d.cfg.VM.WorkDisk,
			Timezone: orDefault(d.cfg.VM.Timezone, hostTimezone("/")), Locale: d.cfg.VM.Locale,
		},
		BootTimeout: time.Duration(d.cfg.BootTimeout), StopTimeout: time.Duration(d.cfg.StopTimeout), TrashGrace: time.Duration(d.cfg.TrashGrace), RestartPause: time.Second, HaltInterval: haltInterval, QuietTimeout: quietTimeout,
		Preflight: d.preflight,
	})
	if _, err := d.driver.Version(ctx); err != nil {
		d.log.Warn("firecracker", "error", err)
	}
	return nil
}

// preflight is what every start of a VM needs of the host, beside what its features need.
func (d *Daemon) preflight(ctx context.Context) error {
	if _, err := kvm.Check(); err != nil {
		return err
	}
	_, err := d.driver.Version(ctx)
	return err
}

// agentPath finds the agent: as configured, beside bangerd, or where packages put it.
func (d *Daemon) agentPath() string {
	if d.cfg.AgentBin != "" {
		return d.cfg.AgentBin
	}
	const name = "banger-agent"
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	dir := filepath.Dir(exe)
	beside := filepath.Join(dir, name)
	if lib := filepath.Join(dir, "..", "lib", "banger", name); !exists(beside) && exists(lib) {
		return lib
	}
	return beside
}

// run executes a program and counts it.
func (d *Daemon) run(ctx context.Context, argv, env []string, onLine func(string)) error {
	d.children.Add(1)
	_, err := exec.Runner{}.Run(ctx, exec.Command{Argv: argv, Env: env, OnLine: onLine})
	return err
}

// hypervisor counts the processes that the driver starts, and tells what was spent before each.
type hypervisor struct {
	*firecracker.Driver
	daemon *Daemon
}

func (h hypervisor) Start(ctx context.Context, m vm.Machine, console func(string)) (vm.Process, error) {
	h.count(m.ID)
	return h.Driver.Start(ctx, m, console)
}

func (h hypervisor) Restore(ctx context.Context, m vm.Machine, from vm.Snapshot, console func(string)) (vm.Process, error) {
	h.count(m.ID)
	return h.Driver.Restore(ctx, m, from, console)
}

func (h hypervisor) count(id vm.ID) {
	h.daemon.children.Add(1)
	h.daemon.log.Info("hypervisor starts", "id", id, "commits", h.daemon.store.Commits(), "children", h.daemon.children.Load())
}

// guests opens the host's ends of vsock devices.
type guests struct{ log *slog.Logger }

func (g guests) Open(dir string, cfg func() agentproto.GuestConfig, events func(lifecycle.GuestEvent)) (lifecycle.Guest, error) {
	return guest.Open(dir, cfg, func(e guest.Event) { events(lifecycle.GuestEvent(e)) }, g.log)
}

func (g guests) Restored(dir string, events func(lifecycle.GuestEvent)) (lifecycle.Guest, error) {
	return guest.OpenRestored(dir, func(e guest.Event) { events(lifecycle.GuestEvent(e)) }, g.log)
}

// operations joins those of this process with those of its predecessors.
type operations struct{ *Daemon }

// kept is how many operations are looked for in the store, which keeps no more for long.
const kept = 1000

func (o operations) List(ctx context.Context) ([]op.Operation, error) {
	all := o.tracker.List()
	tracked := map[op.ID]bool{}
	for _, x := range all {
		tracked[x.ID] = true
	}
	stored, err := o.store.Operations(ctx, kept)
	for _, x := range stored {
		if !tracked[x.ID] {
			all = append(all, x)
		}
	}
	slices.SortStableFunc(all, func(a, b op.Operation) int { return b.Created.Compare(a.Created) })
	return all, err
}

func (o operations) Get(ctx context.Context, id op.ID) (op.Operation, error) {
	if now, ok := o.tracker.Get(id); ok {
		return now, nil
	}
	return o.store.Operation(ctx, id)
}

func (o operations) Follow(ctx context.Context, id op.ID, each func(op.Operation) error) error {
	return o.tracker.Follow(ctx, id, each)
}

func (o operations) Cancel(id op.ID) error { return o.tracker.Cancel(id) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func orDefault(v, def string) string {
	if v == "" {
		return def
	}
	return v
}
