package store

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

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
	return fault.System(writeVM(dir, v), "write", filepath.Join(dir, FileVM))
}

func writeVM(dir string, v vm.VM) error {
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
	return syncPath(dir)
}

// ReadVM reads the description in a VM's directory, which is named after the VM's id. One of a newer
// schema is fault.Incompatible, since what it adds would be lost; anything else that this build would
// not have written is fault.Corrupt.
func ReadVM(dir string) (vm.VM, error) {
	path := filepath.Join(dir, FileVM)
	body, err := readBounded(dir)
	if err != nil {
		if f, ok := errors.AsType[*fault.Error](err); ok {
			return vm.VM{}, f.WithOp("read", path)
		}
		return vm.VM{}, fault.System(err, "read", path)
	}
	v, err := parseVM(body)
	if err == nil && string(v.ID) != filepath.Base(dir) {
		err = damaged("it describes the VM %s, whose directory this is not", v.ID)
	}
	if err != nil {
		return vm.VM{}, fault.From(err).WithOp("read", path)
	}
	return v, nil
}

// readBounded returns what a regular vm.json in dir holds. A hypervisor works beneath that directory,
// so nothing in it is trusted to be a file: links are not followed and a FIFO is not waited for.
func readBounded(dir string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(err)
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	before, err := root.Lstat(FileVM)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(err)
	}
	if err != nil {
		return nil, err
	}
	f, err := root.OpenFile(FileVM, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || !os.SameFile(before, info) {
		return nil, damaged("it is not a regular file")
	}
	body, err := io.ReadAll(io.LimitReader(f, maxVM+1))
	if err == nil && len(body) > maxVM {
		err = damaged("it is larger than %s", vm.FormatSize(maxVM))
	}
	return body, err
}

// parseVM reads the schema first: a newer file need not look like ours in any other way.
func parseVM(body []byte) (vm.VM, error) {
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return vm.VM{}, damaged("it cannot be read: %w", err)
	}
	switch {
	case head.Schema > vmSchema:
		return vm.VM{}, fault.New(fault.Incompatible, "it was written by a newer banger: schema %d, this build knows %d", head.Schema, vmSchema).
			WithHint("install the newer banger again; nothing was changed")
	case head.Schema < 1:
		return vm.VM{}, damaged("it has no schema")
	}
	var file vmFile
	if err := json.Unmarshal(body, &file); err != nil {
		return vm.VM{}, damaged("it cannot be read: %w", err)
	}
	if !file.VM.ID.Valid() {
		return vm.VM{}, damaged("%q is not a VM's id", file.VM.ID)
	}
	if err := vm.CheckName(file.VM.Name); err != nil {
		return vm.VM{}, damaged("%w", err)
	}
	return file.VM, nil
}

func damaged(format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupt, format, args...).WithHint("restore it from a backup; the disks beside it are untouched")
}

func missing(err error) *fault.Error {
	return &fault.Error{Code: fault.NotFound, Msg: "there is none", Hint: "restore it from a backup; disks beside it are untouched", Err: err}
}

// syncPath makes a file or a directory durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
