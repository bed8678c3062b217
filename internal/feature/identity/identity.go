// Package identity makes a guest one particular machine: hostname, machine-id, time zone and locale.
package identity

import (
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
