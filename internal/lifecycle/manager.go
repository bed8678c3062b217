package lifecycle

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/snapshot"
	"banger/internal/vm"
)

// Config is what a Manager is made of.
type Config struct {
	Layout   vm.Layout
	Tag      vm.Tag
	Arch     string // of this host, as in GOARCH
	BootID   string // of this host's kernel, as in vm.Process
	Store    Store
	Images   Images
	Hyper    Hypervisor
	Guests   Guests
	Dirs     Dirs
	Snaps    Snapshots
	Features []feature.Feature
	Network  Network
	Capacity Capacity
	Meter    Meter
	Rules    admission.Rules
	Refused  func(lack string) // is told what was lacking when something is not admitted: memory, disk or quota; may be nil
	Tracker  *op.Tracker
	Log      *slog.Logger

	// Freeze tells what a snapshot of a machine with this image would freeze of this host.
	Freeze func(ctx context.Context, img image.Manifest) (snapshot.Frozen, error)
	// Warm has a snapshot prepared, in the background, of what was created and may be created again.
	Warm bool

	Defaults     Defaults
	BootTimeout  time.Duration                   // from the hypervisor's start to readiness
	StopTimeout  time.Duration                   // for an orderly shutdown, before the guest is killed
	TrashGrace   time.Duration                   // how long a deleted VM can be restored
	RestartPause time.Duration                   // before the first restart of a VM that is kept up; each failure doubles it
	HaltInterval time.Duration                   // between two looks at the vCPUs of a guest that may have halted
	QuietTimeout time.Duration                   // for a guest that has booted to have nothing more to do
	Preflight    func(ctx context.Context) error // what any start needs of the host: KVM, Firecracker
}

// Defaults fill in what a create request leaves out.
type Defaults struct {
	Image    string
	VCPU     int
	Memory   int64 // bytes
	WorkDisk int64 // bytes
	Timezone string
	Locale   string
}

// Manager runs the verbs. Verbs on one VM are serial, on different VMs parallel.
type Manager struct {
	Config
	layout   vm.Layout
	tag      vm.Tag
	store    Store
	images   Images
	hyper    Hypervisor
	guests   Guests
	dirs     Dirs
	features []feature.Feature
	log      *slog.Logger

	ctx    context.Context // ends when the daemon does
	cancel context.CancelFunc
	jobs   tally // operations
	watch  tally // watchers of running VMs

	locks     locks
	admitting sync.Mutex // held from admission to the commit of what was admitted
	measured  measured
	choosing  sync.RWMutex // held for reading from the choice of an image to the commit of its VM
	mu        sync.Mutex
	live      map[vm.ID]*live // VMs with a hypervisor
	disk      disk
	keeps     map[vm.ID]*keep   // VMs that are kept up
	warming   map[string]bool   // keys of golden snapshots that are being taken
	told      map[string]string // what the log says already, by what it is about

	restarting chan struct{} // a token for each VM that is being restarted
}

// New returns a manager. Recover must be called before the first verb.
func New(c Config) *Manager {
	ctx, cancel := context.WithCancel(context.Background())
	c.Store = crashing(c.Store)
	return &Manager{
		Config: c,
		layout: c.Layout, tag: c.Tag, store: c.Store, images: c.Images, hyper: c.Hyper,
		guests: c.Guests, dirs: c.Dirs, features: c.Features, log: c.Log,
		ctx: ctx, cancel: cancel,
		locks: locks{held: map[vm.ID]chan struct{}{}},
		live:  map[vm.ID]*live{},
		keeps: map[vm.ID]*keep{}, warming: map[string]bool{}, told: map[string]string{}, restarting: make(chan struct{}, restartsAtOnce),
	}
}

// Idle waits until no operation runs.
func (m *Manager) Idle(ctx context.Context) error {
	select {
	case <-m.jobs.idle():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close lets go of every VM, which all run on, and waits for the manager's goroutines. Operations
// that still run are canceled and undone.
func (m *Manager) Close() {
	m.cancel()
	// Either may have begun the other; now that the context has ended nothing begins for a second time.
	for range 2 {
		<-m.jobs.idle()
		<-m.watch.idle()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, l := range m.live {
		_ = l.agent().Close() // nothing depends on it any more
		delete(m.live, id)
	}
}

// List returns the VMs that the caller may see, ordered by name.
func (m *Manager) List(ctx context.Context, caller vm.Caller) ([]vm.VM, error) {
	all, err := m.store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]vm.VM, 0, len(all))
	for _, v := range all {
		if caller.Sees(v.Owner) && !v.Template {
			out = append(out, v)
		}
	}
	return out, nil
}

// Find returns the VM that the selector names. Another owner's VM is fault.NotFound.
func (m *Manager) Find(ctx context.Context, caller vm.Caller, selector string) (vm.VM, error) {
	seen, err := m.List(ctx, caller)
	if err != nil {
		return vm.VM{}, err
	}
	return vm.Select(seen, selector)
}

// reload returns the VM as it is committed now.
func (m *Manager) reload(ctx context.Context, id vm.ID) (vm.VM, error) {
	all, err := m.store.VMs(ctx)
	if err != nil {
		return vm.VM{}, err
	}
	return vm.Select(all, string(id))
}

func (m *Manager) imageOf(v vm.VM) (image.Manifest, error) {
	all, err := m.images.List()
	if err != nil {
		return image.Manifest{}, err
	}
	return image.Select(all, v.Image.ID)
}

// guestOf returns the agent of a running VM.
func (m *Manager) guestOf(ctx context.Context, caller vm.Caller, selector string) (vm.VM, Guest, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return v, nil, err
	}
	if v.State == vm.Paused {
		return v, nil, isPaused(v, "reach VM")
	}
	if v.State != vm.Running {
		return v, nil, notRunning(v, "reach VM")
	}
	l := m.liveOf(v.ID)
	if l == nil {
		return v, nil, notHeld(v, "reach VM")
	}
	return v, l.agent(), nil
}

func notHeld(v vm.VM, what string) error {
	return fault.New(fault.Unavailable, "its hypervisor runs, but this daemon has no hold of it").WithOp(what, v.Name).
		WithHint("see the daemon's log; `banger vm kill %s` ends it", v.Name)
}

func notRunning(v vm.VM, what string) error {
	return fault.New(fault.WrongState, "it is %s", v.State).WithOp(what, v.Name).
		WithHint("start it with `banger vm start %s`", v.Name)
}

// locks gives each VM's verbs their turn.
type locks struct {
	mu   sync.Mutex
	held map[vm.ID]chan struct{} // one token each
}

// lock waits for the VM's turn and returns what ends it.
func (l *locks) lock(ctx context.Context, id vm.ID) (unlock func(), err error) {
	turn := l.turn(id)
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// tryLock takes the VM's turn if nobody has it.
func (l *locks) tryLock(id vm.ID) (unlock func(), free bool) {
	turn := l.turn(id)
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, true
	default:
		return nil, false
	}
}

func (l *locks) turn(id vm.ID) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	turn, ok := l.held[id]
	if !ok {
		turn = make(chan struct{}, 1)
		l.held[id] = turn
	}
	return turn
}

// forget drops a deleted VM's turn.
func (l *locks) forget(id vm.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, id)
}
