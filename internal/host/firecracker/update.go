package firecracker

import (
	"context"
	"net/http"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Balloon takes size bytes in all, rounded down to MiB, of the memory that a guest was booted with; 0 gives all back.
// The guest gives it as soon as it can, and takes some back rather than kill a process of its own.
func (d *Driver) Balloon(ctx context.Context, id vm.ID, size int64) error {
	return d.update(ctx, id, "/balloon", balloonUpdate{AmountMiB: size / mib})
}

// Redrive opens a drive's file anew and tells the guest how large it is now.
func (d *Driver) Redrive(ctx context.Context, id vm.ID, drive vm.Drive) error {
	return d.update(ctx, id, "/drives/"+drive.ID, driveUpdate{DriveID: drive.ID, PathOnHost: drive.Path})
}

func (d *Driver) update(ctx context.Context, id vm.ID, path string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	if err := call(ctx, d.apiSocket(id), http.MethodPatch, path, body, nil); err != nil {
		return fault.New(fault.Unavailable, "Firecracker does not take it: %w", err).WithOp("change machine of VM", string(id)).
			WithHint("restart it: `banger vm stop %s`, then start it again", id).WithLogs(d.layout.FirecrackerLog(id))
	}
	return nil
}
