package store

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"banger/internal/fault"
	"banger/internal/vm"
)

// FileVM is the name of a VM's description in its directory.
const FileVM = "vm.json"

// vmSchema is the version of vm.json that this build writes.
const vmSchema = 1

// maxVM bounds vm.json; an ordinary one has 2 KiB.
const maxVM = 1 << 20

type vmFile struct {
	Schema int   `json:"schema"`
	VM     vm.VM `json:"vm"`
}

// WriteVM replaces a VM's description atomically and durably: a crash leaves the old or the new one.
func WriteVM(dir string, v vm.VM) error {
	body, err := json.MarshalIndent(vmFile{Schema: vmSchema, VM: v}, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+FileVM+"-") // mode 0600: it holds the guest's host key
	if err != nil {
		return err
	}
	_, err = f.Write(append(body, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, FileVM))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadVM reads a VM's description. One of a newer schema is refused, since what it adds would be lost.
func ReadVM(dir string) (vm.VM, error) {
	path := filepath.Join(dir, FileVM)
	f, err := os.Open(path)
	if err != nil {
		return vm.VM{}, fault.System(err, "read", path)
	}
	defer f.Close()
	var file vmFile
	if err := json.NewDecoder(io.LimitReader(f, maxVM)).Decode(&file); err != nil {
		return vm.VM{}, fault.New(fault.Corrupt, "it cannot be read: %w", err).WithOp("read", path).
			WithHint("restore it from a backup; the disks beside it are untouched")
	}
	switch {
	case file.Schema > vmSchema:
		return vm.VM{}, fault.New(fault.Incompatible, "it was written by a newer banger: schema %d, this build knows %d", file.Schema, vmSchema).
			WithOp("read", path).WithHint("install the newer banger again")
	case !file.VM.ID.Valid() || vm.CheckName(file.VM.Name) != nil:
		return vm.VM{}, fault.New(fault.Corrupt, "it describes no valid VM").WithOp("read", path).
			WithHint("restore it from a backup; the disks beside it are untouched")
	}
	return file.VM, nil
}
