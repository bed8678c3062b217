package disk

import (
	"context"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/image"
	"banger/internal/vm"
)

// Devices is what root overlays that are devices need of the host.
type Devices interface {
	// Check says what the host lacks for a VM in dir to have one.
	Check(dir string) error
	// Make makes the file of a new one. It never overwrites.
	Make(o vm.Overlay) error
	// Up makes the device, anew where there is one, and its node. fault.Corrupt is of one whose file is of no more use.
	Up(ctx context.Context, o vm.Overlay) error
	// Grow makes it larger, the device where there is one and else the file.
	Grow(ctx context.Context, o vm.Overlay) error
	// Usable tells whether a device still takes and holds what is written: fault.Corrupt says that it does not.
	Usable(device string) error
	// Flush has all that was written to it in its file.
	Flush(o vm.Overlay) error
	// Down removes the device and its node. Gone is success.
	Down(ctx context.Context, device, node string) error
	// Names lists those of this instance.
	Names() ([]string, error)
}

// Choice is what decides how the root overlays of new VMs are kept.
type Choice struct {
	Wish   vm.RootBackend // empty leaves it to the host
	Shares bool           // files in the state directory can share blocks
}

// RootFeature is the root overlay.
type RootFeature struct {
	*Feature
	choice   Choice
	snapshot snapshot
}

// Root is the root overlay: the first drive, /dev/vda in the guest. The agent finds it there without
// being told and grows its file system to the device.
func Root(layout vm.Layout, tag vm.Tag, choice Choice, disks Disks, drives Drives, devices Devices) *RootFeature {
	f := &Feature{
		name:   "root-disk",
		drive:  vm.Drive{ID: "root", Path: vm.FileRootDisk, Root: true},
		device: "/dev/vda",
		key:    "root_disk",
		size:   func(s *vm.Spec) *int64 { return &s.RootDisk },
		disks:  disks, drives: drives,
	}
	clone := plain{layout: layout, disks: disks, source: image.FileRoot, name: vm.FileRootDisk, size: f.size, clone: disks.Clone}
	private := clone
	private.clone = disks.Copy
	device := snapshot{layout: layout, disks: disks, tag: tag, devices: devices}
	f.backend = func(v vm.VM) backend {
		switch v.RootBackend {
		case vm.RootSnapshot:
			return device
		case vm.RootCopy:
			return private
		default:
			return clone
		}
	}
	return &RootFeature{Feature: f, choice: choice, snapshot: device}
}

// choose decides how a new VM's root overlay is kept, and says why.
func (f *RootFeature) choose() (vm.RootBackend, string, error) {
	switch wish := f.choice.Wish; {
	case wish == vm.RootCopy:
		return wish, "as it is configured", nil
	case wish == vm.RootSnapshot:
		return wish, "as it is configured", f.lacks()
	case f.choice.Shares:
		return vm.RootReflink, "files in the state directory share blocks", nil
	case wish == vm.RootReflink:
		return vm.RootCopy, "though reflink is configured: files in the state directory share no blocks", nil
	}
	if err := f.lacks(); err != nil {
		return vm.RootCopy, "files in the state directory share no blocks, and there is no device-mapper for it: " + fault.From(err).Error(), nil
	}
	return vm.RootSnapshot, "files in the state directory share no blocks", nil
}

func (f *RootFeature) lacks() error { return f.snapshot.devices.Check(f.snapshot.layout.State) }

// Draft implements feature.Drafter.
func (f *RootFeature) Draft(v *vm.VM) (err error) {
	if v.RootBackend == "" {
		v.RootBackend, _, err = f.choose()
	}
	return err
}

// Contribute adds the drive, and the device that it may be.
func (f *RootFeature) Contribute(v vm.VM, b *feature.Blueprint) {
	f.Feature.Contribute(v, b)
	b.RootBackend = v.RootBackend
	if v.RootBackend == vm.RootSnapshot {
		b.Hold(v.ID, vm.RecordDM, v.ID.RootDevice(f.snapshot.tag), vm.UntilStop)
	}
}

// Preflight looks whether the host has what the VM's root overlay needs.
func (f *RootFeature) Preflight(_ context.Context, v vm.VM) error {
	if v.RootBackend != vm.RootSnapshot {
		return nil
	}
	return f.lacks()
}

// Provision makes the overlay of the image, or of a snapshot.
func (f *RootFeature) Provision(ctx context.Context, v vm.VM, from string, report feature.Report) (warning string, err error) {
	return f.Feature.Provision(ctx, v, from, func(method string) {
		if v.RootBackend == vm.RootReflink && method != string(vm.RootReflink) {
			method += ", since the file system no longer shares blocks"
		}
		report(method)
	})
}

// Examine looks whether the kernel has given up the device.
func (f *RootFeature) Examine(_ context.Context, v vm.VM) error {
	if v.RootBackend != vm.RootSnapshot {
		return nil
	}
	return f.snapshot.devices.Usable(v.ID.RootDevice(f.snapshot.tag))
}

// Removes implements feature.Remover.
func (*RootFeature) Removes() vm.RecordKind { return vm.RecordDM }

// Remove takes the device away.
func (f *RootFeature) Remove(ctx context.Context, r vm.Record) error {
	id, ours := f.snapshot.tag.RootDeviceOf(r.Name)
	if !ours {
		return fault.New(fault.Internal, "it is no device of this instance").WithOp("remove device", r.Name)
	}
	return f.snapshot.devices.Down(ctx, r.Name, f.snapshot.node(id))
}

// Find implements feature.Finder.
func (f *RootFeature) Find(context.Context) ([]vm.Record, error) {
	names, err := f.snapshot.devices.Names()
	var out []vm.Record
	for _, name := range names {
		id, _ := f.snapshot.tag.RootDeviceOf(name)
		out = append(out, vm.Record{VM: id, Kind: vm.RecordDM, Name: name, Until: vm.UntilStop})
	}
	return out, err
}

// Checks implements feature.Checker.
func (f *RootFeature) Checks() []feature.Check {
	return []feature.Check{{
		Name: "root overlays",
		Probe: func(context.Context) (string, error) {
			backend, why, err := f.choose()
			return string(backend) + ": " + why, err
		},
		Fix: "set storage.root_backend to auto in the daemon's configuration",
	}}
}
