// Package identity makes a guest one particular machine: hostname, machine-id, time zone and locale.
package identity

import (
	"context"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/vm"
)

// Feature is the identity.
type Feature struct{}

// Name implements feature.Feature.
func (Feature) Name() string { return "identity" }

// Contribute fills in the guest config.
func (Feature) Contribute(v vm.VM, b *feature.Blueprint) {
	b.Guest.Hostname = v.Name
	b.Guest.MachineID = v.Access.MachineID
	b.Guest.Timezone, b.Guest.Locale = v.Timezone, v.Locale
}

// Settings implements feature.Setter: a VM can have another name. What finds it by its id, as SSH does its host key,
// does not notice.
func (Feature) Settings() []feature.Setting {
	return []feature.Setting{{
		Key: "name",
		Get: func(v vm.VM) string { return v.Name },
		Set: func(v *vm.VM, value string) error {
			v.Name = value
			return vm.CheckName(value)
		},
		Apply: rename,
	}}
}

// rename tells the guest what it is called from now on.
func rename(ctx context.Context, c feature.Change, _ feature.Report) (later string, err error) {
	if !c.Runs() {
		return "", nil
	}
	if c.Guest == nil {
		return "there is no guest to ask now", nil
	}
	if err := c.Guest.Rename(ctx, c.Is.Name); err != nil {
		return fault.From(err).Msg, nil
	}
	return "", nil
}
