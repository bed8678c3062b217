// Package disk gives a VM its two disks: the root overlay, a private copy-on-write view of its
// image's root file system, and the work disk at /root, which a user must never lose.
package disk

import (
	"context"
	"fmt"

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
	// Copy is Clone that shares no block with src.
	Copy(ctx context.Context, src, dst string, size int64) (method string, err error)
	// Exists reports whether path is a regular file.
	Exists(path string) (bool, error)
	// Grow makes the file at path size bytes long where it is shorter. It never shrinks it.
	Grow(path string, size int64) error
}

// Seeds is what the work disk needs of images.
type Seeds interface {
	// CheckSeed says what is wrong with an image's work seed; nil where it is what it was made as.
	CheckSeed(image string) error
	// MakeSeed makes path what an image's work seed is made as.
	MakeSeed(ctx context.Context, image, path string) error
}

// Drives is what the features need of the hypervisor.
type Drives interface {
	// Redrive has the hypervisor look at a drive's file anew, and tell the guest how large it is.
	Redrive(ctx context.Context, id vm.ID, d vm.Drive) error
}

// Feature is one disk of a VM.
type Feature struct {
	name   string
	drive  vm.Drive
	device string // in the guest
	key    string // of the setting that is its size
	size   func(*vm.Spec) *int64
	mount  *agentproto.Mount // nil where the agent needs no word to mount it

	backend func(vm.VM) backend
	disks   Disks
	drives  Drives
	seeds   Seeds // nil where it is not made of a work seed
}

// Work is the work disk: the second drive, mounted at /root. The guest grows the file system as it
// mounts it: that costs no child process on the host, and online only the groups in use are touched.
func Work(layout vm.Layout, disks Disks, drives Drives, seeds Seeds) *Feature {
	const device = "/dev/vdb"
	f := &Feature{
		name:   "work-disk",
		drive:  vm.Drive{ID: "work", Path: vm.FileWorkDisk},
		device: device,
		key:    "work_disk",
		size:   func(s *vm.Spec) *int64 { return &s.WorkDisk },
		mount:  &agentproto.Mount{Device: device, Path: "/root", FSType: "ext4", Grow: true},
		disks:  disks, drives: drives, seeds: seeds,
	}
	keep := plain{layout: layout, disks: disks, source: image.FileWorkSeed, name: vm.FileWorkDisk, size: f.size, clone: disks.Clone}
	f.backend = func(vm.VM) backend { return keep }
	return f
}

// Name implements feature.Feature.
func (f *Feature) Name() string { return f.name }

// Contribute adds the drive and what the guest does with it.
func (f *Feature) Contribute(_ vm.VM, b *feature.Blueprint) {
	b.Machine.Drives = append(b.Machine.Drives, f.drive)
	if f.mount != nil {
		b.Guest.Mounts = append(b.Guest.Mounts, *f.mount)
	}
}

// Provision makes the disk of the image, or of a snapshot.
func (f *Feature) Provision(ctx context.Context, v vm.VM, from string, report feature.Report) (warning string, err error) {
	if f.seeds != nil && from == "" {
		if why := f.seeds.CheckSeed(v.Image.ID); why != nil {
			report("generated")
			return fmt.Sprintf("image %s: %s; a work disk was generated instead of cloned", v.Image.Name, fault.From(why).Msg), f.generate(ctx, v)
		}
	}
	method, err := f.backend(v).provision(ctx, v, from)
	if err == nil {
		report(method)
	}
	return "", err
}

// generate makes the disk without the image's seed.
func (f *Feature) generate(ctx context.Context, v vm.VM) error {
	if err := f.seeds.MakeSeed(ctx, v.Image.ID, f.backend(v).file(v)); err != nil {
		return err
	}
	return f.backend(v).grow(ctx, v)
}

// Save copies the disk into a snapshot's directory.
func (f *Feature) Save(ctx context.Context, v vm.VM, to string, report feature.Report) error {
	method, err := f.backend(v).save(ctx, v, to)
	if err == nil {
		report(method)
	}
	return err
}

// Up checks that the disk is there, and makes it as large as it is to be: its growth may have been cut short. It
// never makes one: an empty disk in place of a lost one would hide the loss.
func (f *Feature) Up(ctx context.Context, v vm.VM, _ feature.Report) error {
	file := f.backend(v).file(v)
	ok, err := f.disks.Exists(file)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Corrupt, "its %s is missing: %s", f.name, file).WithOp("start VM", v.Name).
			WithHint("put the file back from where it was moved or from a backup; nothing was changed")
	}
	return f.backend(v).up(ctx, v)
}

// Settings implements feature.Setter: a disk can grow.
func (f *Feature) Settings() []feature.Setting {
	return []feature.Setting{{
		Key:   f.key,
		Get:   func(v vm.VM) string { return vm.FormatSize(*f.size(&v.Spec)) },
		Set:   f.set,
		Apply: f.apply,
	}}
}

// set refuses to shrink a disk. Its file system could not be made smaller while it is mounted, and what is cut off
// a file is gone.
func (f *Feature) set(v *vm.VM, value string) error {
	size, err := vm.ParseSize(value)
	if err != nil {
		return err
	}
	has := f.size(&v.Spec)
	if size < *has {
		return fault.New(fault.Invalid, "%s is less than the %s that it has, and a disk never shrinks", vm.FormatSize(size), vm.FormatSize(*has)).
			WithOp("size VM's", f.key).WithHint("choose more than it has; for less make another VM, and copy what is to be kept")
	}
	*has = size
	return nil
}

// apply grows the file, then has the hypervisor and the guest take notice. Only the file can fail it: from then on
// the next boot fills the disk, if nothing does before.
func (f *Feature) apply(ctx context.Context, c feature.Change, report feature.Report) (later string, err error) {
	size := *f.size(&c.Is.Spec)
	if err := f.backend(c.Is).grow(ctx, c.Is); err != nil {
		return "", err
	}
	report(vm.FormatSize(size))
	if !c.Runs() {
		return "", nil
	}
	if c.Guest == nil {
		return "there is no guest to ask now", nil
	}
	if err := f.drives.Redrive(ctx, c.Is.ID, f.drive); err != nil {
		return fault.From(err).Msg, nil
	}
	if err := c.Guest.Grow(ctx, f.device, size); err != nil {
		return fault.From(err).Msg, nil
	}
	return "", nil
}
