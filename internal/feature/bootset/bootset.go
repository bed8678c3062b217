// Package bootset puts the kernel and the initrd that a VM boots into its directory.
package bootset

import (
	"context"

	"banger/internal/feature"
	"banger/internal/vm"
)

// Kernels is what the feature needs of the host.
type Kernels interface {
	// Link places the image's kernel, and an initrd of this build's agent with the modules that
	// this kernel needs, into dir.
	Link(ctx context.Context, imageID, dir string) error
	// CheckAgent returns the path of the agent that guests get, or why it cannot be read.
	CheckAgent() (path string, err error)
}

// Feature is the boot set.
type Feature struct {
	Layout  vm.Layout
	Kernels Kernels
	Args    func(arch string) string // kernel command line
}

// Name implements feature.Feature.
func (*Feature) Name() string { return "boot-set" }

// Contribute names kernel, initrd and command line.
func (f *Feature) Contribute(v vm.VM, b *feature.Blueprint) {
	b.Machine.Kernel = vm.FileKernel
	b.Machine.Initrd = vm.FileInitrd
	b.Machine.BootArgs = f.Args(v.Arch)
	if b.Image.Init != "" {
		b.Guest.Init = []string{b.Image.Init}
	}
}

// Up links the files anew at every start, so that a VM gets the agent of the banger that starts it.
func (f *Feature) Up(ctx context.Context, v vm.VM, _ feature.Report) error {
	return f.Kernels.Link(ctx, v.Image.ID, f.Layout.Jail(v.ID))
}

// Preflight looks whether there is an agent to give to the guest.
func (f *Feature) Preflight(context.Context, vm.VM) error {
	_, err := f.Kernels.CheckAgent()
	return err
}

// Checks implements feature.Checker.
func (f *Feature) Checks() []feature.Check {
	return []feature.Check{{
		Name:  "agent",
		Probe: func(context.Context) (string, error) { return f.Kernels.CheckAgent() },
		Fix:   "put banger-agent beside bangerd, or set agent_bin",
	}}
}
