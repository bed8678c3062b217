// Package disk gives a VM its two disks: the root overlay, a private copy-on-write view of its
// image's root file system, and the work disk at /root, which a user must never lose.
package disk

import (
	"context"
	"path/filepath"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/image"
	"banger/internal/vm"
)

// Disks is what the features need of the host.
type Disks interface {
	// Clone makes dst a private copy of src, size bytes long or as long as src, and says how:
	// "reflink" or "copy". It never shrinks and never overwrites.
	Clone(ctx context.Context, src, dst string, size int64) (method string, err error)
	// Exists reports whether path is a regular file.
	Exists(path string) (bool, error)
}

// Feature is one disk of a VM.
type Feature struct {
	name   string
	source string // file of the image that it is cloned from
	file   string // file of the VM that it becomes
	size   func(vm.Spec) int64
	guest  func(*feature.Blueprint)

	layout vm.Layout
	disks  Disks
}

// Root is the root overlay: the first drive, /dev/vda in the guest. The agent finds it there without
// being told and grows its file system to the device.
func Root(layout vm.Layout, disks Disks) *Feature {
	return &Feature{
		name: "root-disk", source: image.FileRoot, file: vm.FileRootDisk,
		size: func(s vm.Spec) int64 { return s.RootDisk },
		guest: func(b *feature.Blueprint) {
			b.Machine.Drives = append(b.Machine.Drives, vm.Drive{ID: "root", Path: vm.FileRootDisk, Root: true})
		},
		layout: layout, disks: disks,
	}
}

// Work is the work disk: the second drive, mounted at /root. The guest grows the file system as it
// mounts it: that costs no child process on the host, and online only the groups in use are touched.
func Work(layout vm.Layout, disks Disks) *Feature {
	return &Feature{
		name: "work-disk", source: image.FileWorkSeed, file: vm.FileWorkDisk,
		size: func(s vm.Spec) int64 { return s.WorkDisk },
		guest: func(b *feature.Blueprint) {
			b.Machine.Drives = append(b.Machine.Drives, vm.Drive{ID: "work", Path: vm.FileWorkDisk})
			b.Guest.Mounts = append(b.Guest.Mounts, agentproto.Mount{Device: "/dev/vdb", Path: "/root", FSType: "ext4", Grow: true})
		},
		layout: layout, disks: disks,
	}
}

// Name implements feature.Feature.
func (f *Feature) Name() string { return f.name }

// Contribute adds the drive and what the guest does with it.
func (f *Feature) Contribute(_ vm.VM, b *feature.Blueprint) { f.guest(b) }

// Provision clones the disk from the image.
func (f *Feature) Provision(ctx context.Context, v vm.VM, report feature.Report) error {
	method, err := f.disks.Clone(ctx, filepath.Join(f.layout.Image(v.Image.ID), f.source), f.path(v), f.size(v.Spec))
	if err != nil {
		return err
	}
	report(method)
	return nil
}

// Up checks that the disk is there. It never makes one: an empty disk in place of a lost one would
// hide the loss.
func (f *Feature) Up(_ context.Context, v vm.VM, _ feature.Report) error {
	ok, err := f.disks.Exists(f.path(v))
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Corrupt, "its %s is missing: %s", f.name, f.path(v)).WithOp("start VM", v.Name).
			WithHint("put the file back from where it was moved or from a backup; nothing was changed")
	}
	return nil
}

func (f *Feature) path(v vm.VM) string { return filepath.Join(f.layout.Jail(v.ID), f.file) }
