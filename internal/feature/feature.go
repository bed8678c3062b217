// Package feature defines what a part of a VM must offer to take part in its life. Each feature has
// a package of its own below this one and stands in one explicit, ordered slice in package daemon.
//
// A feature implements Feature and whichever of the optional interfaces it needs. The engine
// (package lifecycle) applies features in the slice's order where order matters and side by side
// where it does not, and takes them down in reverse.
package feature

import (
	"context"
	"net"

	"banger/internal/agentproto"
	"banger/internal/image"
	"banger/internal/vm"
)

// Feature contributes to the blueprint of a VM before anything is made. Contribute is pure.
type Feature interface {
	Name() string // short, lower case; it labels steps and stages
	Contribute(v vm.VM, b *Blueprint)
}

// Drafter decides, of a VM that is about to be made, what is the host's to say and stays as it is. What is decided
// already, as that of a VM that goes on from a snapshot is, it leaves.
type Drafter interface {
	Draft(v *vm.VM) error
}

// Provisioner makes what lives as long as the VM, inside the VM's directory, once, at create.
// A failed create removes the directory as a whole. from is the directory of the snapshot that the VM is to
// go on from, or "" where it begins with its image. A warning is of what it had to do otherwise than it should.
type Provisioner interface {
	Provision(ctx context.Context, v vm.VM, from string, report Report) (warning string, err error)
}

// Saver copies what the VM has in its directory into that of a snapshot, for Provision to begin with. The guest
// stands still meanwhile.
type Saver interface {
	Save(ctx context.Context, v vm.VM, to string, report Report) error
}

// Rehearser does once, in a guest of which a golden snapshot is to be taken, what the user of a VM will do first: so that
// what it needs is in the guest's memory already. ssh connects to its agent's SSH server.
type Rehearser interface {
	Rehearse(ctx context.Context, v vm.VM, ssh func(ctx context.Context) (net.Conn, error)) error
}

// Upper makes or checks what a running VM needs, before every start. It is idempotent: what exists
// already and is ours is success. All that it makes is named by records.
type Upper interface {
	Up(ctx context.Context, v vm.VM, report Report) error
}

// Holder is an Upper of what a guest could be heard by. A guest that goes on from a snapshot is another machine at
// first, and is not to be heard before it is its own.
type Holder interface {
	// UpHeld is Up for such a guest.
	UpHeld(ctx context.Context, v vm.VM, report Report) error
	// Admit lets it be heard.
	Admit(ctx context.Context, v vm.VM, report Report) error
}

// Resumer has again what of a VM that runs goes with the daemon that had it. It is idempotent: it is asked when the VM
// is taken back, and from time to time.
type Resumer interface {
	Resume(ctx context.Context, v vm.VM) error
}

// Examiner looks whether what a VM that runs has still serves it, from time to time. It changes nothing. fault.Corrupt
// says what is lost.
type Examiner interface {
	Examine(ctx context.Context, v vm.VM) error
}

// Remover removes the resources of the record kinds it names. What is already gone is success.
type Remover interface {
	Removes() vm.RecordKind
	Remove(ctx context.Context, r vm.Record) error
}

// Finder lists, as the records that would name them, what there is on the host of this instance that Remove removes:
// so what no record names any more is found too. Every Remover of what is not in the VM's directory is one.
type Finder interface {
	Find(ctx context.Context) ([]vm.Record, error)
}

// Preflighter checks what a start needs, before anything of it is committed. A new VM has nothing yet.
type Preflighter interface {
	Preflight(ctx context.Context, v vm.VM) error
}

// Guard may refuse that a VM is deleted, also one that is to be killed for it: its error says why, and its hint the way
// out. There is no other, so a guard that cannot find out does not object. g is nil where there is no guest to ask.
type Guard interface {
	Guard(ctx context.Context, v vm.VM, g Guest) error
}

// Checker tells doctor what to look at on the host.
type Checker interface {
	Checks() []Check
}

// Check is one look at the host. What Probe finds is a line for people; its error's hint is how to mend it, and Fix
// is that of one that has none.
type Check struct {
	Name  string
	Probe func(ctx context.Context) (detail string, err error)
	Fix   string
}

// Report tells what a step is doing now, one short line.
type Report func(detail string)

// Blueprint is the whole VM as it is about to be: the union of what its features contribute.
type Blueprint struct {
	Image   image.Manifest
	Machine vm.Machine
	Guest   agentproto.GuestConfig
	Records []vm.Record
	// RootBackend is how the root overlay is kept. A snapshot of one kind is of no use to another.
	RootBackend vm.RootBackend
}

// Hold adds a record.
func (b *Blueprint) Hold(id vm.ID, kind vm.RecordKind, name string, until vm.Until) {
	b.Records = append(b.Records, vm.Record{VM: id, Kind: kind, Name: name, Until: until})
}
