package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"time"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/sshkey"
	"banger/internal/vm"
)

// CreateRequest asks for a VM. Zero values take the defaults.
type CreateRequest struct {
	Name           string
	Image          string
	Labels         map[string]string
	Spec           vm.Spec
	Timezone       string
	Locale         string
	Restart        vm.Restart
	Settings       map[string]string // as SetRequest has them
	AuthorizedKeys []string
	Cold           bool // boot it, also where a snapshot of a booted guest could be gone on from

	rootBackend vm.RootBackend // as what it is made of has it; empty leaves it to the host
}

// Create validates the request, commits its intent and begins the operation that makes the VM and
// boots it. What a failed operation had made is gone again when it ends.
func (m *Manager) Create(ctx context.Context, caller vm.Caller, req CreateRequest) (op.Operation, error) {
	arrived := time.Now()
	m.choosing.RLock()
	defer m.choosing.RUnlock()
	img, err := m.FindImage(orDefault(req.Image, m.Defaults.Image))
	if err != nil {
		return op.Operation{}, fault.From(err).InOp("create VM", req.Name)
	}
	v, err := m.draft(ctx, caller, req, img)
	if err != nil {
		return op.Operation{}, fault.From(err).InOp("create VM", req.Name)
	}
	o := newOperation(KindCreate, v, caller.UID)
	o.Created = arrived // checking the request takes time too
	v, o, unlock, err := m.intendHolding(ctx, v, img, o, 0)
	if err != nil {
		return op.Operation{}, fault.From(err).InOp("create VM", v.Name)
	}
	return m.spawnHolding(o, v.ID, unlock, func(ctx context.Context, job *op.Job) error {
		warm, err := false, error(nil)
		if !req.Cold {
			warm, err = m.createWarm(ctx, job, v)
		}
		if !warm && err == nil {
			err = m.create(ctx, job, v)
		}
		if err != nil {
			return m.undoCreate(job, v, err)
		}
		if !warm {
			m.healSeed(v.Image)
		}
		if !warm && !req.Cold && m.Warm {
			m.warmLater(v)
		}
		return nil
	}), nil
}

// intend commits that a VM is to be made, unless the host cannot take it. now is what is written to the disk at once,
// in bytes, beside the VM's own disks.
func (m *Manager) intend(ctx context.Context, v vm.VM, img image.Manifest, o op.Operation, now int64) (vm.VM, op.Operation, error) {
	if err := m.preflight(ctx, v); err != nil {
		return v, o, err
	}
	m.admitting.Lock()
	defer m.admitting.Unlock()
	warnings, err := m.admitNew(ctx, v, img, now)
	if err != nil {
		return v, o, err
	}
	o.Warnings = warnings
	leased, err := m.store.Create(ctx, v, m.pick(v.ID), func(leased vm.VM) []vm.Record {
		return m.plan(leased, img).Records
	}, o)
	if err != nil {
		return v, o, err
	}
	return leased, o, nil
}

// intendHolding is intend for a VM whose turn is held from before it is committed, until unlock is called.
func (m *Manager) intendHolding(ctx context.Context, v vm.VM, img image.Manifest, o op.Operation, now int64) (_ vm.VM, _ op.Operation, unlock func(), err error) {
	if unlock, err = m.locks.lock(ctx, v.ID); err != nil {
		return v, o, nil, err
	}
	leased, o, err := m.intend(ctx, v, img, o, now)
	if err != nil {
		unlock()
		m.locks.forget(v.ID)
		return v, o, nil, err
	}
	return leased, o, unlock, nil
}

// draft derives the whole VM from a request and the image that it names.
func (m *Manager) draft(ctx context.Context, caller vm.Caller, req CreateRequest, img image.Manifest) (vm.VM, error) {
	if err := vm.CheckLabels(req.Labels); err != nil {
		return vm.VM{}, err
	}
	if img.Arch != m.Arch {
		return vm.VM{}, fault.New(fault.Incompatible, "image %s is for %s, this host is %s", img.Name, img.Arch, m.Arch).
			WithHint("pull or import an image for %s", m.Arch)
	}
	if req.Name == "" {
		var err error
		if req.Name, err = m.freeName(ctx); err != nil {
			return vm.VM{}, err
		}
	}
	if err := vm.CheckName(req.Name); err != nil {
		return vm.VM{}, err
	}
	spec := req.Spec
	spec.VCPU = orDefault(spec.VCPU, m.Defaults.VCPU)
	spec.Memory = orDefault(spec.Memory, m.Defaults.Memory)
	spec.RootDisk = orDefault(spec.RootDisk, img.Root.Size)
	spec.WorkDisk = orDefault(spec.WorkDisk, max(m.Defaults.WorkDisk, img.WorkSeed.Size))
	if err := spec.Check(img.Root.Size, img.WorkSeed.Size); err != nil {
		return vm.VM{}, err
	}
	timezone, locale := orDefault(req.Timezone, m.Defaults.Timezone), orDefault(req.Locale, m.Defaults.Locale)
	if err := checkRegion(timezone, locale); err != nil {
		return vm.VM{}, err
	}
	id := vm.NewID()
	host, err := sshkey.New("banger " + req.Name)
	if err != nil {
		return vm.VM{}, err
	}
	for _, k := range req.AuthorizedKeys {
		if err := sshkey.CheckPublic(k); err != nil {
			return vm.VM{}, err
		}
	}
	now := time.Now()
	v := vm.VM{
		ID: id, Name: req.Name, Owner: caller.UID, Labels: req.Labels, Arch: img.Arch,
		Image: vm.ImageRef{ID: img.ID, Name: img.Name}, Spec: spec, Timezone: timezone, Locale: locale,
		Desired: vm.Running, State: vm.Creating, Restart: req.Restart, RootBackend: req.rootBackend,
		Access: vm.Access{
			AuthorizedKeys: req.AuthorizedKeys,
			HostKey:        host.Public, HostKeyPrivate: host.Private,
			MachineID: vm.NewMachineID(),
		},
		Created: now, Changed: now,
	}
	for _, f := range m.features {
		if d, ok := f.(feature.Drafter); ok {
			if err := d.Draft(&v); err != nil {
				return vm.VM{}, err
			}
		}
	}
	if err := m.write(&v, req.Settings); err != nil {
		return vm.VM{}, err
	}
	return v, v.Spec.Check(img.Root.Size, img.WorkSeed.Size)
}

// checkRegion checks a time zone and a locale, either of which may be left to the guest.
func checkRegion(timezone, locale string) error {
	if timezone != "" {
		if err := vm.CheckTimezone(timezone); err != nil {
			return err
		}
	}
	if locale != "" {
		return vm.CheckLocale(locale)
	}
	return nil
}

// freeName draws random names until one is not taken.
func (m *Manager) freeName(ctx context.Context) (string, error) {
	all, err := m.store.VMs(ctx)
	if err != nil {
		return "", err
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(all, func(v vm.VM) bool { return v.Name == name })
	}
	for range 100 {
		if name := vm.RandomName(); !taken(name) {
			return name, nil
		}
	}
	return fmt.Sprintf("%s-%s", vm.RandomName(), vm.NewID()[:4]), nil
}

// create makes the VM and boots it.
func (m *Manager) create(ctx context.Context, job *op.Job, v vm.VM) error {
	if err := m.furnish(ctx, job, v, "", m.up(v, true)); err != nil {
		return err
	}
	return m.boot(ctx, job, v)
}

// furnish makes a new VM's directory, and side by side what lives as long as the VM, from a snapshot's directory or
// the image, and what its start needs. Nil is for one that is not to be started.
func (m *Manager) furnish(ctx context.Context, job *op.Job, v vm.VM, from string, up group) error {
	directory := step{"directory", func(context.Context, feature.Report) error { return m.dirs.Make(v.ID) }}
	return run(ctx, job, group{directory}, append(m.provision(job, v, from, up != nil), up...))
}

// undoCreate removes everything that a failed create had made, the VM's directory and row with it:
// nobody has ever been given the VM, so nothing of theirs can be in it.
func (m *Manager) undoCreate(job *op.Job, v vm.VM, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), undoBudget)
	defer cancel()
	cause = m.keptLogs(v, job, m.explain(v, cause))
	if err := m.erase(ctx, v, m.failed(job, cause)); err != nil {
		m.log.Error("undo create", "vm", v.Name, "id", v.ID, "error", err)
		return fault.From(cause).WithHint("its remains could not be removed and will be at the daemon's next start: %v", err)
	}
	return cause
}

// keptLogs is an error whose logs outlive the VM's directory, which goes.
func (m *Manager) keptLogs(v vm.VM, job *op.Job, err error) error {
	f := fault.From(err)
	if len(f.Logs) == 0 {
		return err
	}
	kept, kerr := m.dirs.KeepLogs(v.ID, string(job.Snapshot().ID))
	if kerr != nil {
		m.log.Warn("keep the logs of a failed create", "vm", v.Name, "error", kerr)
	}
	moved := *f
	moved.Logs = kept
	return &moved
}

// erase takes down all that a VM holds, puts its directory where it is to go, and commits its absence.
func (m *Manager) erase(ctx context.Context, v vm.VM, o *op.Operation) error {
	m.release(v.ID)
	records, err := m.store.Records(ctx, v.ID)
	if err != nil {
		return err
	}
	if err := m.takeDown(ctx, records); err != nil {
		return err
	}
	leave := m.dirs.Remove
	if !v.Deleted.IsZero() {
		leave = m.dirs.Discard
	}
	if err := leave(v.ID); err != nil {
		return err
	}
	if err := m.store.Commit(ctx, vm.Change{VM: v, Remove: true, Op: o}); err != nil {
		return err
	}
	m.locks.forget(v.ID)
	return nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
