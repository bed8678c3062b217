package lifecycle

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/vm"
)

// Capacity tells what this host has. All in bytes.
type Capacity interface {
	// Memory is all of the host's.
	Memory() (int64, error)
	// Space is the room on the file system of the state directory.
	Space() (admission.Space, error)
	// Allocated is what a file occupies; one that is not there occupies nothing.
	Allocated(path string) (int64, error)
	// Shares reports whether a clone shares its blocks with what it was made from.
	Shares() bool
}

// measured is what VMs' disks occupied, in bytes. Nobody needs it to the second, and a create must not cost more the
// more VMs there are. Manager.admitting guards it.
type measured struct {
	since time.Time
	has   map[vm.ID]int64
}

// measureFor is how long a measurement serves.
const measureFor = 10 * time.Second

// admitNew refuses a new VM that the host cannot take or its owner may not have, and warns of what may
// become too much. now is what is written at once beside its disks, in bytes. m.admitting is held, and stays so until the VM is committed: of two creates that each
// fit, the second counts the first.
func (m *Manager) admitNew(ctx context.Context, v vm.VM, img image.Manifest, now int64) (warnings []string, err error) {
	all, err := m.store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.refuses("quota", m.Rules.Share(all, v)); err != nil {
		return nil, err
	}
	if err := m.refuses("quota", m.Rules.RunningShare(all, v)); err != nil {
		return nil, err
	}
	if err := m.admitMemory(all, v); err != nil {
		return nil, err
	}
	copies, err := m.copied(v, m.layout.Image(img.ID))
	if err != nil {
		return nil, err
	}
	now += copies
	growth, err := m.growth(all)
	if err != nil {
		return nil, err
	}
	warning, err := m.admitDisk(now, growth+v.Spec.RootDisk+v.Spec.WorkDisk)
	if warning != "" {
		warnings = append(warnings, warning)
	}
	return warnings, err
}

// growth is how much VMs' disks may yet take beyond what they have, in bytes. m.admitting is held.
func (m *Manager) growth(all []vm.VM) (sum int64, err error) {
	if time.Since(m.measured.since) > measureFor {
		m.measured = measured{since: time.Now(), has: map[vm.ID]int64{}}
	}
	for _, o := range all {
		has, ok := m.measured.has[o.ID]
		if !ok {
			jail := m.layout.Jail(o.ID)
			if has, err = m.allocated(filepath.Join(jail, o.RootFile()), filepath.Join(jail, vm.FileWorkDisk)); err != nil {
				return 0, err
			}
			m.measured.has[o.ID] = has
		}
		sum += max(0, o.Spec.RootDisk+o.Spec.WorkDisk-has)
	}
	return sum, nil
}

// admitChange commits the intent to change a VM, unless its owner may not have it so. What its next start could be
// refused for, as things are, is warned of. The disks' growth is admitted as a new disk's is.
func (m *Manager) admitChange(ctx context.Context, job *op.Job, was, is vm.VM) error {
	m.admitting.Lock()
	defer m.admitting.Unlock()
	all, err := m.store.VMs(ctx)
	if err != nil {
		return err
	}
	if grown := is.Spec.RootDisk + is.Spec.WorkDisk - was.Spec.RootDisk - was.Spec.WorkDisk; grown > 0 {
		if err := m.refuses("quota", m.Rules.Share(all, is)); err != nil {
			return err
		}
		growth, err := m.growth(all)
		if err != nil {
			return err
		}
		warning, err := m.admitDisk(0, growth+grown)
		if err != nil {
			return err
		}
		if warning != "" {
			job.Warn(warning)
		}
	}
	if is.Spec.Memory > was.Spec.Memory || is.Spec.VCPU > was.Spec.VCPU {
		if err := errors.Join(m.Rules.RunningShare(all, is), m.memoryFits(all, is)); err != nil {
			job.Warn("as things are it could not be started: " + fault.From(err).Msg)
		}
	}
	var hold []vm.Record
	if is.Process != nil {
		hold = running(m.records(is)) // what is made for it while it runs
	}
	o := job.Snapshot()
	return m.commit(ctx, vm.Change{VM: is, Hold: hold, Op: &o})
}

// admitBack refuses a VM that comes back to stay stopped where its owner may not have it. It is admitted as a
// new one is.
func (m *Manager) admitBack(ctx context.Context, v vm.VM) error {
	all, err := m.store.VMs(ctx)
	if err != nil {
		return err
	}
	return m.refuses("quota", m.Rules.Share(all, v))
}

// admitStart commits the intent to start a VM, unless the host cannot take it now or its owner may not run
// it. That is noted on a VM that is merely stopped: after a guest's reboot nobody waits for the answer.
func (m *Manager) admitStart(ctx context.Context, job *op.Job, v vm.VM, hold []vm.Record) (vm.VM, error) {
	m.admitting.Lock()
	defer m.admitting.Unlock()
	if err := m.roomFor(ctx, v); err != nil {
		if v.State == vm.Stopped && fault.Is(err, fault.Exhausted) {
			v.Reason = "the last start failed: " + fault.From(err).Msg
			err = errors.Join(err, m.commit(ctx, vm.Change{VM: v, Op: m.failed(job, err)}))
		}
		return v, err
	}
	v.State, v.Desired = vm.Starting, vm.Running
	return m.commitStart(ctx, job, v, hold)
}

// roomFor reports whether a VM that is there may run now.
func (m *Manager) roomFor(ctx context.Context, v vm.VM) error {
	all, err := m.store.VMs(ctx)
	if err != nil {
		return err
	}
	if err := m.refuses("quota", m.Rules.RunningShare(all, v)); err != nil {
		return err
	}
	if err := m.admitMemory(all, v); err != nil {
		return err
	}
	_, err = m.admitDisk(0, 0)
	return err
}

func (m *Manager) admitMemory(all []vm.VM, v vm.VM) error {
	err := m.memoryFits(all, v)
	if fault.Is(err, fault.Exhausted) {
		return m.refuses("memory", err)
	}
	return err
}

func (m *Manager) memoryFits(all []vm.VM, v vm.VM) error {
	memory, err := m.Capacity.Memory()
	if err != nil {
		return fault.System(err, "read the host's memory", "")
	}
	return m.Rules.Memory(memory, all, v)
}

func (m *Manager) admitDisk(now, growth int64) (warning string, err error) {
	space, err := m.Capacity.Space()
	if err != nil {
		return "", fault.System(err, "read the free space of", m.layout.State)
	}
	warning, err = m.Rules.Disk(space, now, growth)
	return warning, m.refuses("disk", err)
}

// refuses passes on what a rule says, and has a refusal counted.
func (m *Manager) refuses(lack string, err error) error {
	if err != nil && m.Refused != nil {
		m.Refused(lack)
	}
	return err
}

// copied is what copies of a VM's disks in a directory occupy at once, in bytes: nothing where a clone shares its blocks.
// The directory is an image's, a jail or a snapshot's.
func (m *Manager) copied(v vm.VM, dir string) (int64, error) {
	var paths []string
	if !m.Capacity.Shares() || v.RootBackend == vm.RootCopy {
		paths = append(paths, filepath.Join(dir, v.RootFile()))
	}
	if !m.Capacity.Shares() {
		paths = append(paths, filepath.Join(dir, vm.FileWorkDisk))
	}
	return m.allocated(paths...)
}

func (m *Manager) allocated(paths ...string) (sum int64, err error) {
	for _, p := range paths {
		n, err := m.Capacity.Allocated(p)
		if err != nil {
			return 0, fault.System(err, "measure", p)
		}
		sum += n
	}
	return sum, nil
}
