// Package vmdir makes, describes and removes the directory of a VM: its disks, its vm.json, its logs.
package vmdir

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/drain"
	"banger/internal/logtime"
	"banger/internal/reconcile"
	"banger/internal/store"
	"banger/internal/vm"
)

// Dirs implements lifecycle.Dirs on a state directory.
type Dirs struct {
	Layout vm.Layout
}

// Make makes the directory of a new VM. One that exists already is never taken over.
func (d Dirs) Make(id vm.ID) error {
	if err := os.MkdirAll(d.Layout.VMs(), 0o700); err != nil {
		return fault.System(err, "make directory", d.Layout.VMs())
	}
	for _, dir := range []string{d.Layout.VM(id), d.Layout.Jail(id), d.Layout.Logs(id)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fault.System(err, "make directory", dir)
		}
	}
	return nil
}

// Write replaces the VM's vm.json.
func (d Dirs) Write(v vm.VM) error {
	return store.WriteVM(d.Layout.VM(v.ID), v)
}

// Remove removes the directory with all that is in it. Gone is success.
func (d Dirs) Remove(id vm.ID) error {
	if !id.Valid() {
		return fault.New(fault.Internal, "it is not a VM id").WithOp("remove directory of VM", string(id))
	}
	return fault.System(os.RemoveAll(d.Layout.VM(id)), "remove directory", d.Layout.VM(id))
}

// List names the directories among those of VMs.
func (d Dirs) List() ([]string, error) {
	entries, err := os.ReadDir(d.Layout.VMs())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.System(err, "read", d.Layout.VMs())
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Describe reads what a directory says of itself; nil when there is none of this name.
func (d Dirs) Describe(name string) (*reconcile.Directory, error) {
	path := filepath.Join(d.Layout.VMs(), filepath.Base(name))
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // none is an answer, not a failure
	}
	if err != nil {
		return nil, fault.System(err, "look at", path)
	}
	out := &reconcile.Directory{Path: path}
	if !st.IsDir() {
		out.Err = fault.New(fault.Corrupt, "it is no directory").WithOp("read", path)
		return out, nil
	}
	out.VM, out.Err = store.ReadVM(path)
	return out, nil
}

// Discard moves the directory to the trash. There already, or gone, is success.
func (d Dirs) Discard(id vm.ID) error {
	err := d.move(id, d.Layout.VMs(), d.Layout.Trash())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Restore takes the directory back from the trash. Back already is success; nowhere is fs.ErrNotExist.
func (d Dirs) Restore(id vm.ID) error {
	err := d.move(id, d.Layout.Trash(), d.Layout.VMs())
	if errors.Is(err, fs.ErrNotExist) {
		if _, there := os.Stat(d.Layout.VM(id)); there == nil {
			return nil
		}
	}
	return err
}

// move renames a VM's directory and makes that durable: the commit that follows says where it is.
func (d Dirs) move(id vm.ID, from, to string) error {
	if !id.Valid() {
		return fault.New(fault.Internal, "it is not a VM id").WithOp("move directory of VM", string(id))
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fault.System(err, "make directory", to)
	}
	dir := filepath.Join(from, string(id))
	if err := os.Rename(dir, filepath.Join(to, string(id))); err != nil {
		return fault.System(err, "move to "+filepath.Base(to), dir)
	}
	return errors.Join(syncDir(to), syncDir(from))
}

// Exchange gives each of two VMs what the other has in its jail, at once and durably.
func (d Dirs) Exchange(a, b vm.ID) error {
	one, other := d.Layout.Jail(a), d.Layout.Jail(b)
	if err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
		return fault.System(err, "exchange "+one+" with", other)
	}
	return errors.Join(syncDir(d.Layout.VM(a)), syncDir(d.Layout.VM(b)))
}

func syncDir(path string) error {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return fault.System(err, "sync", path)
	}
	defer f.Close()
	return fault.System(f.Sync(), "sync", path)
}

// Trashed reads the descriptions of the VMs in the trash.
func (d Dirs) Trashed() ([]vm.VM, error) {
	entries, err := os.ReadDir(d.Layout.Trash())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.System(err, "read", d.Layout.Trash())
	}
	var all []vm.VM
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), going) {
			continue
		}
		v, err := store.ReadVM(filepath.Join(d.Layout.Trash(), e.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, v)
	}
	return all, errors.Join(errs...)
}

// going marks, in the trash, a directory that is being removed: it can no longer be restored.
const going = ".going-"

// Destroy removes a VM from the trash. Whatever an interrupted removal has left goes too.
func (d Dirs) Destroy(id vm.ID) error {
	if !id.Valid() {
		return fault.New(fault.Internal, "it is not a VM id").WithOp("empty trash of VM", string(id))
	}
	dir := d.Layout.Trashed(id)
	if err := os.Rename(dir, filepath.Join(d.Layout.Trash(), going+string(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.System(err, "remove", dir)
	}
	return d.SweepGoing()
}

// SweepGoing removes what interrupted removals have left in the trash.
func (d Dirs) SweepGoing() error {
	left, err := filepath.Glob(filepath.Join(d.Layout.Trash(), going+"*"))
	for _, dir := range left {
		err = errors.Join(err, fault.System(os.RemoveAll(dir), "remove", dir))
	}
	return err
}

// keptSets is how many sets of logs of failed creates are kept.
const keptSets = 20

// KeepLogs moves a VM's logs to where they outlive it. The oldest set goes when there are too many.
func (d Dirs) KeepLogs(id vm.ID, set string) ([]string, error) {
	place := filepath.Join(d.Layout.Failed(), set)
	paths, err := d.keepLogs(id, place)
	return paths, fault.System(err, "keep logs in", place)
}

func (d Dirs) keepLogs(id vm.ID, place string) ([]string, error) {
	if err := os.MkdirAll(d.Layout.Failed(), 0o700); err != nil {
		return nil, err
	}
	if err := os.Rename(d.Layout.Logs(id), place); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // it failed before it had any
		}
		return nil, err
	}
	entries, err := os.ReadDir(place)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), logtime.Suffix) {
			paths = append(paths, filepath.Join(place, e.Name()))
		}
	}
	return paths, d.prune()
}

func (d Dirs) prune() error {
	sets, err := os.ReadDir(d.Layout.Failed())
	if err != nil || len(sets) <= keptSets {
		return err
	}
	age := func(e fs.DirEntry) int64 {
		info, err := e.Info()
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(sets, func(a, b fs.DirEntry) int { return cmp.Compare(age(a), age(b)) })
	var errs []error
	for _, s := range sets[:len(sets)-keptSets] {
		errs = append(errs, os.RemoveAll(filepath.Join(d.Layout.Failed(), s.Name())))
	}
	return errors.Join(errs...)
}

// Tail returns the last lines of a log, safe to show; empty when there is none.
func (Dirs) Tail(path string, lines int) string {
	text, err := drain.Tail(path, lines)
	if err != nil {
		return ""
	}
	return text
}
