package vm

// Snapshot names the files that hold a machine as it stands, beside its disks. Paths are absolute.
type Snapshot struct {
	State  string // vCPUs and devices
	Memory string // the guest's
}
