// Package dm keeps root overlays as snapshots of device-mapper: a device that reads as the image's file until it is
// written to, and a sparse file that takes what is written. It needs neither udev nor dmsetup.
//
// A device's table has the snapshot over the image and, where the disk is larger than that, a plain stretch behind it:
// so the size of a disk costs nothing. Both lie in the one file, first the snapshot's store, which has room for every
// chunk of the image, then the stretch. So a store never overflows: what it lacks is the host's disk.
package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/vm"
)

const (
	sector = 512
	chunk  = 8 // sectors that are copied at a time, as small as the kernel takes: a page
)

// Snapshots makes and removes the devices of one instance.
type Snapshots struct {
	tag     vm.Tag
	origins sync.Mutex // one loop device for each image
}

// New returns the devices of an instance.
func New(tag vm.Tag) *Snapshots { return &Snapshots{tag: tag} }

// Check tells whether a VM in dir can have one: fault.Requirement where the kernel has no snapshots, or not for us.
func (*Snapshots) Check(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fault.System(err, "look at", dir)
	}
	if st.Flags&unix.ST_NODEV != 0 {
		return fault.New(fault.Requirement, "its file system is mounted nodev, so there can be no devices in it").WithOp("use", dir).
			WithHint("mount it with dev, or put the state directory elsewhere")
	}
	for _, kind := range []string{"snapshot", "linear"} {
		if _, err := (request{cmd: unix.DM_GET_TARGET_VERSION, name: kind}).do(); err != nil {
			return explain("use device-mapper's", kind, err)
		}
	}
	f, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return explain("use", loopControl, err)
	}
	return f.Close()
}

// Make makes the file of a new overlay, which holds nothing yet. It never overwrites.
func (*Snapshots) Make(o vm.Overlay) error {
	if _, err := extent(o); err != nil {
		return explain("make", o.Cow, err)
	}
	f, err := os.OpenFile(o.Cow, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.System(err, "make", o.Cow)
	}
	return fault.System(f.Close(), "make", o.Cow)
}

// Up makes the device and the node. What a start that was cut short left of them is made anew. The file must be there;
// it is made as long as the overlay's size wants it.
func (s *Snapshots) Up(ctx context.Context, o vm.Overlay) error {
	if err := s.Down(ctx, o.Device, o.Node); err != nil {
		return err
	}
	err := s.up(ctx, o)
	if err != nil {
		err = errors.Join(explain("make device", o.Device, err), s.Down(context.WithoutCancel(ctx), o.Device, o.Node))
	}
	return err
}

func (s *Snapshots) up(ctx context.Context, o vm.Overlay) error {
	e, err := extent(o)
	if err != nil {
		return err
	}
	if err := lengthen(o.Cow, e.file()); err != nil {
		return err
	}
	origin, err := s.origin(ctx, o.Origin)
	if err != nil {
		return err
	}
	defer origin.Close()
	cow, err := attach(ctx, o.Cow, false)
	if err != nil {
		return err
	}
	defer cow.Close()
	made, err := request{cmd: unix.DM_DEV_CREATE, name: o.Device}.do()
	if err != nil {
		return err
	}
	if err := load(o.Device, e, origin, cow); err != nil {
		return err
	}
	if err := s.Usable(o.Device); err != nil {
		return err
	}
	return node(o.Node, made.header.Dev)
}

// origin is the image's loop device, which all its overlays share.
func (s *Snapshots) origin(ctx context.Context, path string) (*os.File, error) {
	s.origins.Lock()
	defer s.origins.Unlock()
	loop, err := attached(path, true)
	if loop != nil || err != nil {
		return loop, err
	}
	return attach(ctx, path, true)
}

// load gives a device its table and makes that effective. In place of one that it has, the kernel hands over to the
// new one what is in the store.
func load(device string, e layout, origin, cow *os.File) error {
	from, err := number(origin)
	if err != nil {
		return err
	}
	to, err := number(cow)
	if err != nil {
		return err
	}
	if _, err := (request{cmd: unix.DM_TABLE_LOAD, name: device, table: e.table(from, to)}).do(); err != nil {
		return fmt.Errorf("load its table: %w", err)
	}
	if _, err := (request{cmd: unix.DM_DEV_SUSPEND, name: device, event: quiet}).do(); err != nil {
		return fmt.Errorf("resume it: %w", err)
	}
	return nil
}

// Grow makes an overlay larger, also while its device is in use. It never shrinks.
func (s *Snapshots) Grow(ctx context.Context, o vm.Overlay) error {
	return explain("grow device", o.Device, s.grow(ctx, o))
}

func (s *Snapshots) grow(ctx context.Context, o vm.Overlay) error {
	e, err := extent(o)
	if err != nil {
		return err
	}
	if err := lengthen(o.Cow, e.file()); err != nil {
		return err
	}
	cow, err := attached(o.Cow, false)
	if cow == nil || err != nil {
		return err // nobody has it: it is made as large with the device
	}
	defer cow.Close()
	origin, err := s.origin(ctx, o.Origin)
	if err != nil {
		return err
	}
	defer origin.Close()
	if err := unix.IoctlSetInt(int(cow.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("grow its loop device: %w", err)
	}
	return load(o.Device, e, origin, cow)
}

// lengthen makes a file as long where it is shorter. What it adds is a hole.
func lengthen(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() < size {
		err = f.Truncate(size)
	}
	return err
}

// node makes a block device's node. A number is given out anew at each start, so one that is there is replaced.
func node(path string, device uint64) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := unix.Mknod(tmp, unix.S_IFBLK|0o600, int(device)); err != nil {
		return fmt.Errorf("make its node: %w", err)
	}
	return os.Rename(tmp, path)
}

// Flush makes what was written to an overlay's device be in its file. One that has no device has it there already.
func (*Snapshots) Flush(o vm.Overlay) error {
	f, err := os.OpenFile(o.Node, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return explain("flush", o.Node, err)
	}
	defer f.Close()
	return explain("flush", o.Node, f.Sync())
}

// busyFor bounds the wait for whoever looks at a device that its hypervisor has let go of.
const busyFor = 5 * time.Second

// Down removes the device and the node, and with the device goes the loop device of its file, and that of the image
// with the last. What is gone already is success.
func (*Snapshots) Down(ctx context.Context, device, node string) error {
	var st unix.Stat_t
	if unix.Lstat(node, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		if err := os.Remove(node); err != nil && !errors.Is(err, os.ErrNotExist) {
			return explain("remove device", device, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, busyFor)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := request{cmd: unix.DM_DEV_REMOVE, name: device, event: quiet}.do()
		switch {
		case err == nil, errors.Is(err, unix.ENXIO), absent(err):
			return nil
		case !errors.Is(err, unix.EBUSY):
			return explain("remove device", device, err)
		}
		select {
		case <-ctx.Done():
			return explain("remove device", device, err)
		case <-tick.C:
		}
	}
}

// Names lists the devices of this instance. A host without device-mapper, or with none for us, has none.
func (s *Snapshots) Names() ([]string, error) {
	a, err := request{cmd: unix.DM_LIST_DEVICES}.do()
	if absent(err) || errors.Is(err, os.ErrPermission) {
		return nil, nil
	}
	var all []string
	if err == nil {
		all, err = a.names()
	}
	return slices.DeleteFunc(all, func(name string) bool {
		_, ours := s.tag.RootDeviceOf(name)
		return !ours
	}), explain("list devices", "", err)
}

// Usable tells whether a device still takes what is written, and holds what was: fault.Corrupt where the kernel has
// given its store up, since the host's disk did not take a write.
func (*Snapshots) Usable(device string) error {
	a, err := request{cmd: unix.DM_TABLE_STATUS, name: device}.do()
	if err != nil {
		return explain("look at device", device, err)
	}
	table, err := a.targets()
	if err == nil && len(table) == 0 {
		err = errGarbled
	}
	if err != nil {
		return explain("look at device", device, err)
	}
	return judge(table[0].params)
}

// judge reads the status of a snapshot: what it holds of how much, or what became of it.
func judge(status string) error {
	if strings.Contains(status, "/") {
		return nil
	}
	return fault.New(fault.Corrupt, "its root overlay is lost: the host's disk did not take a write to it, and the kernel gave it up (%s)", status).
		WithHint("its work disk is whole: copy that one from the VM's directory, then delete the VM and make another; see that the host's disk has room")
}

// absent reports whether an error means that the host has no device-mapper.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// explain says what a failure means; nil stays nil.
func explain(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	e := fault.From(fault.System(err, op, subject))
	switch {
	case op == "use" || strings.HasPrefix(op, "use "):
		e.Code = fault.Requirement
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return e.WithHint("run the daemon as root; in a container, pass the device in")
		}
		return e.WithHint("load the modules: `sudo modprobe -a dm_mod dm_snapshot loop`; in a container, pass /dev/mapper/control and /dev/loop-control in")
	case e.Code == fault.Exhausted:
		return e
	}
	return e.WithHint("look at the host's devices with `dmsetup ls` and `losetup`, and at `dmesg`")
}
