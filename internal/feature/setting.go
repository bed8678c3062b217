package feature

import (
	"context"

	"banger/internal/vm"
)

// Setter has settings: what a VM's owner can change about it by `vm set`.
type Setter interface {
	Settings() []Setting
}

// Setting is one thing about a VM that its owner can change.
type Setting struct {
	// Key names it to people and in the API, such as "work_disk". No two features have the same.
	Key string
	// Sole is one that no two VMs can have alike: a fork does not get it, and a VM that is taken back to a checkpoint keeps
	// what it has.
	Sole bool
	// Get is the value that is wanted, as people read it.
	Get func(v vm.VM) string
	// Set writes a value as people write it into the VM, or refuses it with fault.Invalid. It is pure.
	Set func(v *vm.VM, value string) error
	// Restart says why a VM that runs takes the change at its next start only, and "" when it takes it at once.
	// It is pure. Nil is at once.
	Restart func(c Change) string
	// Apply makes the change true of a VM, whether it runs or not. What a VM that runs could not take is not lost:
	// later says why, and its next start takes it. An error says that nothing was changed; then nothing is. Nil is
	// for what needs no more than to be written down. The change is committed before: Apply may be cut short at any
	// point, and Up must make good for it.
	Apply func(ctx context.Context, c Change, report Report) (later string, err error)
}

// Change is a VM as it was and as it is to be.
type Change struct {
	Was, Is vm.VM
	Guest   Guest // nil where there is none that could be asked
}

// Runs reports whether the VM has a hypervisor.
func (c Change) Runs() bool { return c.Is.Process != nil }

// Guest is the agent of a VM that runs, as far as features ask it for anything.
type Guest interface {
	// Grow enlarges the file system on a disk that is larger now, to size bytes.
	Grow(ctx context.Context, device string, size int64) error
	// Rename gives the guest another hostname.
	Rename(ctx context.Context, hostname string) error
}
