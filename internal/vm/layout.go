package vm

import "path/filepath"

// Layout derives every path of a state directory. It is the one place that knows them.
type Layout struct {
	State string // absolute
}

// Images is where image directories live.
func (l Layout) Images() string { return filepath.Join(l.State, "images") }

// Image is an image's directory.
func (l Layout) Image(id string) string { return filepath.Join(l.Images(), id) }

// Boot holds the initrds, one directory for each combination of modules and agent.
func (l Layout) Boot() string { return filepath.Join(l.State, "boot") }

// VMs is where VM directories live.
func (l Layout) VMs() string { return filepath.Join(l.State, "vms") }

// VM is a VM's directory, holding vm.json.
func (l Layout) VM(id ID) string { return filepath.Join(l.VMs(), string(id)) }

// Trash is where the directories of deleted VMs wait.
func (l Layout) Trash() string { return filepath.Join(l.State, "trash") }

// Trashed is the directory of a VM that is in the trash.
func (l Layout) Trashed(id ID) string { return filepath.Join(l.Trash(), string(id)) }

// Golden holds the snapshots of freshly booted guests, by key.
func (l Layout) Golden() string { return filepath.Join(l.State, "golden") }

// Forks holds what VMs are forked from, one directory for each operation and no longer than that.
func (l Layout) Forks() string { return filepath.Join(l.State, "forks") }

// Checkpoints holds a VM's checkpoints, by name.
func (l Layout) Checkpoints(id ID) string { return filepath.Join(l.VM(id), DirCheckpoints) }

// DirCheckpoints is where a VM's directory has its checkpoints.
const DirCheckpoints = "checkpoints"

// Failed keeps the logs of creates that failed, one directory for each operation.
func (l Layout) Failed() string { return filepath.Join(l.State, "failed") }

// Jail is the hypervisor's working directory, shaped as a jailer's chroot will be.
func (l Layout) Jail(id ID) string { return filepath.Join(l.VM(id), "jail") }

// Logs is where a VM's bounded raw logs are.
func (l Layout) Logs(id ID) string { return filepath.Join(l.VM(id), "logs") }

// ConsoleLog is what the guest wrote to its serial console.
func (l Layout) ConsoleLog(id ID) string { return filepath.Join(l.Logs(id), "console.log") }

// FirecrackerLog is the hypervisor's own log.
func (l Layout) FirecrackerLog(id ID) string { return filepath.Join(l.Logs(id), "firecracker.log") }

// NetworkLog is what the guest was refused on the network, a line of JSON each.
func (l Layout) NetworkLog(id ID) string { return filepath.Join(l.Logs(id), "network.log") }

// DaemonLog is the daemon's JSON log.
func (l Layout) DaemonLog() string { return filepath.Join(l.State, "bangerd.log") }
