// Package door gives a VM ports of the host that lead to its own.
package door

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/vm"
)

// Doors is what the feature needs of the host.
type Doors interface {
	// Open has a VM have these doors open and no others. Those that can be are, and it says why another cannot.
	Open(ctx context.Context, id vm.ID, doors vm.Doors) map[vm.Door]error
	// Close closes all of a VM's. None is success.
	Close(ctx context.Context, id vm.ID) error
	// Check says why a door could not be opened. One of this VM's that is open can.
	Check(ctx context.Context, id vm.ID, d vm.Door) error
	// Free chooses a port of an address on which nobody listens.
	Free(addr netip.Addr) (uint16, error)
	// Found lists the VMs that have doors open.
	Found() []vm.ID
}

// Fleet is all VMs of the instance.
type Fleet interface {
	VMs(ctx context.Context) ([]vm.VM, error)
}

// Feature is the doors.
type Feature struct {
	Doors Doors
	Fleet Fleet
	// Root is below which port number only root's VMs may have doors, as net.ipv4.ip_unprivileged_port_start has it.
	Root int
}

// Name implements feature.Feature.
func (*Feature) Name() string { return "ports" }

// Contribute adds their record: doors are the daemon's, and go with the VM.
func (*Feature) Contribute(v vm.VM, b *feature.Blueprint) {
	if len(vm.DoorsOf(v)) > 0 {
		b.Hold(v.ID, vm.RecordPorts, string(v.ID), vm.UntilStop)
	}
}

// Preflight looks whether all doors can be opened.
func (f *Feature) Preflight(ctx context.Context, v vm.VM) error {
	doors := vm.DoorsOf(v)
	if err := f.alone(ctx, v, doors); err != nil {
		return err
	}
	for _, d := range doors {
		if err := f.Doors.Check(ctx, v.ID, d); err != nil {
			return err
		}
	}
	return nil
}

// alone refuses doors where another VM is to have one: whichever of the two started first would keep the other down.
func (f *Feature) alone(ctx context.Context, v vm.VM, doors vm.Doors) error {
	if len(doors) == 0 {
		return nil
	}
	all, err := f.Fleet.VMs(ctx)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.ID == v.ID {
			continue
		}
		for _, its := range vm.DoorsOf(other) {
			if slices.ContainsFunc(doors, its.Collides) {
				return fault.New(fault.InUse, "VM %s has that port, as %s", other.Name, its).WithOp("listen on", its.Listen.String()).
					WithHint("choose another host port, or take it from that VM: banger vm port remove %s %s", other.Name, its)
			}
		}
	}
	return nil
}

// Up opens them.
func (f *Feature) Up(ctx context.Context, v vm.VM, report feature.Report) error {
	doors := vm.DoorsOf(v)
	if len(doors) == 0 {
		return nil
	}
	report(doors.String())
	return f.open(ctx, v.ID, doors)
}

func (f *Feature) open(ctx context.Context, id vm.ID, doors vm.Doors) error {
	closed := f.Doors.Open(ctx, id, doors)
	var errs []error
	for _, d := range doors {
		errs = append(errs, closed[d])
	}
	return errors.Join(errs...)
}

// Resume opens what is not open: a daemon's doors go with it.
func (f *Feature) Resume(ctx context.Context, v vm.VM) error {
	if doors := vm.DoorsOf(v); len(doors) > 0 {
		return f.open(ctx, v.ID, doors)
	}
	return nil
}

// Removes implements feature.Remover.
func (*Feature) Removes() vm.RecordKind { return vm.RecordPorts }

// Remove closes a VM's doors.
func (f *Feature) Remove(ctx context.Context, r vm.Record) error {
	return f.Doors.Close(ctx, vm.ID(r.Name))
}

// Find implements feature.Finder.
func (f *Feature) Find(context.Context) ([]vm.Record, error) {
	var out []vm.Record
	for _, id := range f.Doors.Found() {
		out = append(out, vm.Record{VM: id, Kind: vm.RecordPorts, Name: string(id), Until: vm.UntilStop})
	}
	return out, nil
}

// Settings implements feature.Setter.
func (f *Feature) Settings() []feature.Setting {
	return []feature.Setting{{
		Key:   vm.SettingPorts,
		Sole:  true,
		Get:   func(v vm.VM) string { return vm.DoorsOf(v).String() },
		Set:   f.set,
		Apply: f.apply,
	}}
}

// set writes them. A host port that is to be chosen is chosen here, once and for all, so that it stays the same.
func (f *Feature) set(v *vm.VM, value string) error {
	before := vm.DoorsOf(*v)
	doors, err := before.Alter(value)
	if err == nil {
		err = doors.Choose(f.Doors.Free)
	}
	if err != nil {
		return err
	}
	for _, d := range doors {
		if int(d.Listen.Port()) < f.Root && v.Owner != 0 && !slices.Contains(before, d) {
			return fault.New(fault.Forbidden, "ports below %d are root's", f.Root).WithOp("listen on", d.Listen.String()).
				WithHint("choose a host port from %d up, such as %d:%d", f.Root, 8000+int(d.Listen.Port()), d.Port)
		}
	}
	v.Write(vm.SettingPorts, doors.String())
	return nil
}

// apply opens and closes them at once.
func (f *Feature) apply(ctx context.Context, c feature.Change, report feature.Report) (string, error) {
	was, is := vm.DoorsOf(c.Was), vm.DoorsOf(c.Is)
	report(is.String())
	added := slices.DeleteFunc(slices.Clone(is), func(d vm.Door) bool { return slices.Contains(was, d) })
	if err := f.alone(ctx, c.Is, added); err != nil || !c.Runs() {
		return "", err
	}
	closed := f.Doors.Open(ctx, c.Is.ID, is) // one that is no news to its owner is tried again
	for _, d := range added {
		if closed[d] != nil {
			f.Doors.Open(ctx, c.Was.ID, was)
			return "", closed[d]
		}
	}
	return "", nil
}
