// Package lifecycle holds the verbs of a VM's life: create, start, stop, kill, delete, and what to do
// when a guest or the daemon goes down by itself. It sees the host, the guest and the store through
// the ports below only, so that a fake host can fail each of its effects in turn.
//
// Every verb follows the same order: intent is committed before the first effect; what only the
// effects can tell is committed once they are there; the end is committed last. Undo needs the
// committed records and the kernel, never this process's memory.
package lifecycle

import (
	"context"
	"net"
	"net/netip"
	"time"

	"banger/internal/agentproto"
	"banger/internal/event"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/reconcile"
	"banger/internal/snapshot"
	"banger/internal/vm"
)

// Store keeps VMs, records and operations. Every method that writes is one durable commit.
type Store interface {
	// Create inserts a VM with the lease that pick chooses, the records that hold derives from the leased VM, and the operation. A taken name is fault.AlreadyExists.
	Create(ctx context.Context, v vm.VM, pick LeasePicker, hold func(vm.VM) []vm.Record, o op.Operation) (vm.VM, error)
	// Commit applies a change as a whole.
	Commit(ctx context.Context, c vm.Change) error
	// Relet is Commit for a VM that gets the lease that pick chooses, and keeps its records. It returns the VM as it was
	// stored.
	Relet(ctx context.Context, c vm.Change, pick LeasePicker) (vm.VM, error)
	// SaveOperation stores an operation that changes no VM, as it stands, with the news that it brings.
	SaveOperation(ctx context.Context, o op.Operation, news ...event.Event) error
	// Note stores news that no other change brings with it. What befalls VMs and operations is told by
	// the methods above.
	Note(ctx context.Context, news ...event.Event) error
	VMs(ctx context.Context) ([]vm.VM, error)
	Records(ctx context.Context, id vm.ID) ([]vm.Record, error)
}

// LeasePicker chooses a lease whose address is none of those that other VMs have, and rather none of those that rest, of
// which the first has done so for the longest time.
type LeasePicker = func(taken, resting []netip.Addr) (vm.Lease, error)

// Network is where VMs have their addresses.
type Network interface {
	// Pick is a LeasePicker.
	Pick(taken, resting []netip.Addr) (vm.Lease, error)
	// Lease is what a VM with this address gets; false where it is no VM's to have.
	Lease(a netip.Addr) (vm.Lease, bool)
}

// Hypervisor runs machines. There is one driver: Firecracker.
type Hypervisor interface {
	// Start runs the machine in a cgroup or scope that RecordProcess names. console receives each
	// line that the guest's kernel or programs print, escaped and bounded.
	Start(ctx context.Context, m vm.Machine, console func(line string)) (vm.Process, error)
	// Snapshot writes the state and the memory of a paused machine. It stays paused.
	Snapshot(ctx context.Context, id vm.ID, to vm.Snapshot) error
	// Restore runs a machine on from a snapshot. Its drives are in place, as they were when the snapshot was taken;
	// its guest goes on at once.
	Restore(ctx context.Context, m vm.Machine, from vm.Snapshot, console func(line string)) (vm.Process, error)
	// Attach takes a machine back after the daemon was restarted, and tells whether it is paused.
	Attach(ctx context.Context, id vm.ID, p vm.Process, console func(line string)) (paused bool, err error)
	// Pause stops the machine's vCPUs, Resume lets them go on. What is so already is success.
	Pause(ctx context.Context, id vm.ID) error
	Resume(ctx context.Context, id vm.ID) error
	// Wait returns when the process has ended, or with the context's error.
	Wait(ctx context.Context, p vm.Process) error
	// Kill ends the process: asked first, then by force. Gone is success.
	Kill(ctx context.Context, p vm.Process) error
	// Alive reports whether it is this very process that runs, not another with its pid.
	Alive(p vm.Process) bool
	// CPUTime is what the process has used so far. A halted guest uses none.
	CPUTime(p vm.Process) (time.Duration, error)
	// Found lists the VMs of this instance of which there is something that Release removes.
	Found(ctx context.Context) ([]vm.ID, error)
	// Release removes what a RecordProcess names and ends whatever still runs in it.
	Release(ctx context.Context, r vm.Record) error
}

// Guests opens the host's end of a VM's vsock device.
type Guests interface {
	// Open listens for the agent of the VM whose hypervisor works in dir. config is what its guest
	// gets at boot; nil says that it has booted. events are delivered one at a time.
	Open(dir string, config func() agentproto.GuestConfig, events func(GuestEvent)) (Guest, error)
	// Restored listens for the agent of a guest that is about to go on from a snapshot. Until it has adopted its new
	// identity, nobody in that guest is believed to be its agent.
	Restored(dir string, events func(GuestEvent)) (Guest, error)
}

// Snapshots keeps the directories of snapshots.
type Snapshots interface {
	// Make makes an empty one, in place of what an interrupted one has left. A sealed one is fault.AlreadyExists.
	Make(dir string) error
	// Seal makes a snapshot whole and durable, and notes by what its files are known.
	Seal(ctx context.Context, dir string, m snapshot.Manifest) error
	// Open returns a sealed one. None is fs.ErrNotExist, and one that was altered fault.Corrupt.
	Open(dir string) (snapshot.Manifest, error)
	// Verify reads all of a sealed one. It notes what it finds the first time, and compares later.
	Verify(ctx context.Context, dir string) error
	// Learn notes what of a golden one's memory a process needs that goes on from it, and Ahead has the host read that.
	Learn(dir string, pid int) error
	Ahead(dir string) error
	// List names the sealed ones in a directory.
	List(dir string) ([]string, error)
	// Remove removes one, sealed or not. Gone is success.
	Remove(dir string) error
	// Sweep removes those in a directory that were never sealed.
	Sweep(dir string) error
}

// Guest is the agent of one VM.
type Guest interface {
	Ping(ctx context.Context) error
	Info(ctx context.Context) (agentproto.Info, error)
	// Stats asks what it uses. An agent that is too old to know answers with an error.
	Stats(ctx context.Context) (agentproto.Stats, error)
	Shutdown(ctx context.Context, intent agentproto.Intent) error
	// Listeners asks who listens on which ports. An agent that is too old to know answers with an error.
	Listeners(ctx context.Context) (agentproto.Listeners, error)
	Dial(ctx context.Context, host string, port int) (net.Conn, error)
	// SSH connects to its agent's SSH server.
	SSH(ctx context.Context) (net.Conn, error)
	feature.Guest
	// Hold has it write its disks out and fall silent, for a snapshot.
	Hold(ctx context.Context) error
	// Adopt makes a guest that goes on from a snapshot another machine.
	Adopt(ctx context.Context, config agentproto.GuestConfig) error
	// SetClock tells it the host's time, and returns how far its clock was behind.
	SetClock(ctx context.Context) (time.Duration, error)
	Close() error
}

// GuestEvent is what an agent pushed; exactly one field is set.
type GuestEvent struct {
	Hello    *agentproto.Hello
	Progress *agentproto.Progress
	Ready    *agentproto.Ready
	Failed   *agentproto.Failed
	Farewell *agentproto.Farewell
}

// Dirs makes and removes VM directories and writes vm.json.
type Dirs interface {
	Make(id vm.ID) error
	Write(v vm.VM) error
	Remove(id vm.ID) error
	// Discard moves a VM's directory to the trash, Restore takes it back. What is there already, or is gone, is success
	// to Discard; Restore wants it in either place, else it is fs.ErrNotExist.
	Discard(id vm.ID) error
	Restore(id vm.ID) error
	// Exchange gives each of two VMs, at once, what the other has in its jail: both disks among it.
	Exchange(a, b vm.ID) error
	// Trashed returns the VMs in the trash as they describe themselves. One that cannot be read is part of the error,
	// with which the others are returned.
	Trashed() ([]vm.VM, error)
	// Destroy removes a VM's directory from the trash with all that is in it. Gone is success.
	Destroy(id vm.ID) error
	// List names the directories among those of VMs, whether or not they are a VM's.
	List() ([]string, error)
	// Describe reads the directory of this name; nil when there is none.
	Describe(name string) (*reconcile.Directory, error)
	// KeepLogs moves a VM's logs to where they outlive it, a bounded number of such sets being
	// kept, and returns their paths.
	KeepLogs(id vm.ID, set string) ([]string, error)
	// Tail returns the last lines of a log, escaped for a terminal; empty when there is none.
	Tail(path string, lines int) string
}
