package daemon

import (
	"time"

	"banger/internal/vm"
)

// doorDrain is how long a newer build waits for connections through doors to end. Those that last do not keep it waiting.
const doorDrain = 3 * time.Second

// ClosedDoors implements server.Daemon.
func (d *Daemon) ClosedDoors(id vm.ID) map[vm.Door]error { return d.doors.Closed(id) }
