// Package restart lets a VM's owner choose whether the daemon starts it again when it is down though nobody stopped
// it. Package lifecycle does so.
package restart

import (
	"banger/internal/feature"
	"banger/internal/vm"
)

// Feature is the restart policy.
type Feature struct{}

// Name implements feature.Feature.
func (Feature) Name() string { return "restart-policy" }

// Contribute implements feature.Feature: the machine knows nothing of it.
func (Feature) Contribute(vm.VM, *feature.Blueprint) {}

// Settings implements feature.Setter.
func (Feature) Settings() []feature.Setting {
	return []feature.Setting{{
		Key: "restart",
		Get: func(v vm.VM) string { return v.Restart.String() },
		Set: func(v *vm.VM, value string) (err error) {
			v.Restart, err = vm.ParseRestart(value)
			return err
		},
	}}
}
