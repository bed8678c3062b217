package firecracker

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger/internal/fault"
	"banger/internal/vm"
)

// snapshotTime bounds the writing of a snapshot: Firecracker writes all of the memory and flushes it to the disk.
const snapshotTime = 5 * time.Minute

// Snapshot writes what a paused guest's machine is to files that it makes; what it does not finish it removes. The
// guest's connections over vsock are closed by it, also those of a guest that is resumed.
func (d *Driver) Snapshot(ctx context.Context, id vm.ID, to vm.Snapshot) (err error) {
	const op = "write snapshot of VM"
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				err = errors.Join(err, os.Remove(path))
			}
			err = fault.From(err).WithLogs(d.layout.FirecrackerLog(id))
		}
	}()
	// They hold everything that the guest does: Firecracker itself would let anyone read them, and write over others.
	for _, path := range []string{to.State, to.Memory} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fault.System(err, op, path)
		}
		made = append(made, path)
		if err := f.Close(); err != nil {
			return fault.System(err, op, path)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	err = call(ctx, d.apiSocket(id), http.MethodPut, "/snapshot/create", snapshotCreate{full, to.State, to.Memory}, nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fault.New(fault.Canceled, "%w", context.Cause(ctx)).WithOp(op, string(id))
	case strings.Contains(err.Error(), "os error 28"):
		return fault.New(fault.Exhausted, "the disk is full: %w", err).WithOp(op, string(id)).
			WithHint("free some space: delete VMs or images that you no longer need")
	}
	return fault.New(fault.Unavailable, "Firecracker does not write it: %w", err).WithOp(op, string(id)).
		WithHint("see that the VM runs, and look at the logs")
}

// Restore runs m from a snapshot and returns once its guest goes on. The files are only read, and the memory's must
// stay as it is for as long as the guest runs. m has the devices of the machine that the snapshot was made of; its
// disks' files are in m's directory by the names that they had in that one's, and its NICs have TAPs of their own. The
// rest is as for Start.
func (d *Driver) Restore(ctx context.Context, m vm.Machine, from vm.Snapshot, console func(line string)) (vm.Process, error) {
	return d.execute(ctx, m, console, restored{from})
}

// restored is the origin of a guest that goes on from a snapshot.
type restored struct{ vm.Snapshot }

func (restored) op() string { return "restore VM" }

func (restored) prepare(vm.Machine) error { return nil }

func (restored) arguments() []string { return nil }

// await asks for the snapshot as soon as somebody listens.
func (r restored) await(ctx context.Context, watch *minder, _ vm.Process, m vm.Machine) error {
	load := snapshotLoad{
		SnapshotPath: r.State, MemBackend: memoryBackend{fileBackend, r.Memory}, NetworkOverrides: []networkOverride{}, ResumeVM: true,
	}
	for _, n := range m.NICs {
		load.NetworkOverrides = append(load.NetworkOverrides, networkOverride{IfaceID: n.ID, HostDevName: n.TAP})
	}
	var refused errRefused
	err := watch.await(ctx, func() error {
		err := call(ctx, filepath.Join(m.Dir, vm.FileAPISocket), http.MethodPut, "/snapshot/load", load, nil)
		if errors.As(err, &refused) {
			return nil
		}
		return err
	})
	if err == nil && refused.status != "" {
		return unrestorable(refused)
	}
	return err
}

// What Firecracker wraps its reasons in when it does not take a snapshot.
var loadWrappings = []string{
	"Load snapshot error: ",
	"Failed to restore from snapshot: ",
	"Failed to get snapshot state from file: ",
	"Failed to load snapshot state from file: ",
	"Failed to build microVM from snapshot: ",
}

// unrestorable says why Firecracker did not take a snapshot.
func unrestorable(refused errRefused) *fault.Error {
	if refused.reason == "" {
		return fault.New(fault.Internal, "Firecracker does not take the snapshot: %w", refused)
	}
	reason := refused.reason
	for _, w := range loadWrappings {
		reason = strings.TrimPrefix(reason, w)
	}
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(reason, w) })
	}
	switch {
	case has("Invalid data version", "Magic value"):
		return fault.New(fault.Incompatible, "the snapshot was made by another Firecracker: %s", reason).
			WithHint("use the Firecracker that made it, or make a new snapshot")
	case has("restore vCPUs", "TSC"):
		return fault.New(fault.Incompatible, "the snapshot was made on another processor: %s", reason).
			WithHint("use it on a host like the one that it was made on, or make a new snapshot")
	case has("CRC64", "deserialization", "greater then file length"):
		return fault.New(fault.Corrupt, "the snapshot is damaged: %s", reason).WithHint("make a new snapshot")
	case has("os error 12"):
		return fault.New(fault.Exhausted, "%s", reason).WithHint("stop another VM")
	}
	return fault.New(fault.Internal, "%s", reason)
}
