// Package compute gives a VM its vCPUs and its memory.
package compute

import (
	"context"
	"strconv"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/vm"
)

// Balloons is what the feature needs of the host.
type Balloons interface {
	// Balloon takes size bytes in all of the memory that the guest was booted with. The guest gives them as soon
	// as it can.
	Balloon(ctx context.Context, id vm.ID, size int64) error
}

// Feature is vCPUs and memory.
type Feature struct {
	Balloons Balloons
}

// Name implements feature.Feature.
func (*Feature) Name() string { return "compute" }

// Contribute sizes the machine.
func (*Feature) Contribute(v vm.VM, b *feature.Blueprint) {
	b.Machine.VCPU, b.Machine.Memory = v.Spec.VCPU, v.Spec.Memory
}

// Settings implements feature.Setter.
func (f *Feature) Settings() []feature.Setting {
	return []feature.Setting{
		{
			Key: "vcpu",
			Get: func(v vm.VM) string { return strconv.Itoa(v.Spec.VCPU) },
			Set: setVCPU,
			Restart: func(c feature.Change) string {
				if c.Is.Spec.VCPU != c.Is.Holds().VCPU {
					return "a guest keeps the vCPUs that it was booted with"
				}
				return ""
			},
		}, {
			Key: "memory",
			Get: func(v vm.VM) string { return vm.FormatSize(v.Spec.Memory) },
			Set: func(v *vm.VM, value string) (err error) {
				v.Spec.Memory, err = vm.ParseSize(value)
				return err
			},
			Restart: func(c feature.Change) string {
				if has := c.Is.Holds().Memory; c.Is.Spec.Memory > has {
					return "a guest has no more memory than it was booted with, " + vm.FormatSize(has)
				}
				return ""
			},
			Apply: f.applyMemory,
		},
	}
}

func setVCPU(v *vm.VM, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil {
		return fault.New(fault.Invalid, "it is no whole number").WithOp("read vcpu", value).WithHint("choose 1 to %d", vm.MaxVCPU)
	}
	v.Spec.VCPU = n
	return nil
}

// applyMemory takes from the guest what it has beyond what is wanted, or gives back what was taken.
func (f *Feature) applyMemory(ctx context.Context, c feature.Change, _ feature.Report) (later string, err error) {
	if !c.Runs() {
		return "", nil
	}
	if err := f.Balloons.Balloon(ctx, c.Is.ID, max(0, c.Is.Holds().Memory-c.Is.Spec.Memory)); err != nil {
		return fault.From(err).Msg, nil
	}
	return "", nil
}
