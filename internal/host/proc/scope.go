package proc

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"banger/internal/fault"
)

// startScope asks systemd for a transient scope around a running process. The scope vanishes by
// itself with its last process.
func startScope(ctx context.Context, name, description string, pid int) error {
	refuse := func(err error) error {
		return fault.New(fault.Unavailable, "%w", err).WithOp("start scope", name).
			WithHint("see what systemd says: `journalctl -b -u %s`", name)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// systemd's own socket: it is there without a D-Bus daemon.
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return refuse(err)
	}
	defer conn.Close()
	done := make(chan string, 1)
	_, err = conn.StartTransientUnitContext(ctx, name, "fail", []dbus.Property{
		dbus.PropDescription(description),
		dbus.PropSlice(slice),
		dbus.PropPids(uint32(pid)),
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
	}, done)
	if err != nil {
		return refuse(err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return refuse(fault.New(fault.Unavailable, "the job ended as %q", result))
		}
		return nil
	case <-ctx.Done():
		return refuse(ctx.Err())
	}
}
