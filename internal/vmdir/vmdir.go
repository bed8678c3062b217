// Package vmdir makes, describes and removes the directory of a VM: its disks, its vm.json, its logs.
package vmdir

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"banger/internal/fault"
	"banger/internal/host/drain"
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
		paths = append(paths, filepath.Join(place, e.Name()))
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
