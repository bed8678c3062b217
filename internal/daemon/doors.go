package daemon

import "banger/internal/vm"

// ClosedDoors implements server.Daemon.
func (d *Daemon) ClosedDoors(id vm.ID) map[vm.Door]error { return d.doors.Closed(id) }
