package disk

import (
	"context"
	"path/filepath"

	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/vm"
)

// backend is a way of keeping a disk.
type backend interface {
	// file is what holds all that the VM has written to it, and its name in a snapshot. Nothing can stand in for it.
	file(v vm.VM) string
	// provision makes the disk of the image, or of what from, a snapshot's directory, has of one. It says how.
	provision(ctx context.Context, v vm.VM, from string) (method string, err error)
	// save copies what the VM has written into a snapshot's directory, and says how. Nothing writes to it meanwhile.
	save(ctx context.Context, v vm.VM, to string) (method string, err error)
	// up makes what a start needs beside the file, and the disk as large as it is to be. It is idempotent.
	up(ctx context.Context, v vm.VM) error
	// grow makes it as large as it is to be, whether the VM runs or not. It never shrinks it.
	grow(ctx context.Context, v vm.VM) error
}

// plain is a disk that is a file.
type plain struct {
	layout vm.Layout
	disks  Disks
	source string // file of the image that it is made of
	name   string // in the jail
	size   func(*vm.Spec) *int64
	clone  func(ctx context.Context, src, dst string, size int64) (method string, err error)
}

func (p plain) file(v vm.VM) string { return filepath.Join(p.layout.Jail(v.ID), p.name) }

func (p plain) provision(ctx context.Context, v vm.VM, from string) (string, error) {
	source := filepath.Join(p.layout.Image(v.Image.ID), p.source)
	if from != "" {
		source = filepath.Join(from, p.name)
	}
	return p.clone(ctx, source, p.file(v), *p.size(&v.Spec))
}

func (p plain) save(ctx context.Context, v vm.VM, to string) (string, error) {
	return p.clone(ctx, p.file(v), filepath.Join(to, p.name), 0)
}

func (p plain) up(ctx context.Context, v vm.VM) error { return p.grow(ctx, v) }

func (p plain) grow(_ context.Context, v vm.VM) error {
	return p.disks.Grow(p.file(v), *p.size(&v.Spec))
}

// snapshot is a root overlay that is a device over the image, and a file of what was written to it.
type snapshot struct {
	layout  vm.Layout
	disks   Disks
	tag     vm.Tag
	devices Devices
}

func (s snapshot) overlay(v vm.VM) vm.Overlay {
	return vm.Overlay{
		Device: v.ID.RootDevice(s.tag), Origin: filepath.Join(s.layout.Image(v.Image.ID), image.FileRoot),
		Cow: s.file(v), Node: s.node(v.ID), Size: v.Spec.RootDisk,
	}
}

func (s snapshot) file(v vm.VM) string { return filepath.Join(s.layout.Jail(v.ID), vm.FileRootCow) }

func (s snapshot) node(id vm.ID) string { return filepath.Join(s.layout.Jail(id), vm.FileRootDisk) }

func (s snapshot) provision(ctx context.Context, v vm.VM, from string) (string, error) {
	if from == "" {
		return string(vm.RootSnapshot), s.devices.Make(s.overlay(v))
	}
	_, err := s.disks.Clone(ctx, filepath.Join(from, vm.FileRootCow), s.file(v), 0)
	return string(vm.RootSnapshot), err
}

// save needs no more than the file: whoever goes on from it has the same image.
func (s snapshot) save(ctx context.Context, v vm.VM, to string) (string, error) {
	if err := s.devices.Flush(s.overlay(v)); err != nil {
		return "", err
	}
	return s.disks.Clone(ctx, s.file(v), filepath.Join(to, vm.FileRootCow), 0)
}

func (s snapshot) up(ctx context.Context, v vm.VM) error {
	err := s.devices.Up(ctx, s.overlay(v))
	if fault.Is(err, fault.Corrupt) {
		return fault.From(err).InOp("start VM", v.Name)
	}
	return err
}

func (s snapshot) grow(ctx context.Context, v vm.VM) error {
	return s.devices.Grow(ctx, s.overlay(v))
}
