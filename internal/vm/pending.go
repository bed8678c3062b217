package vm

import "slices"

// Holds is what the VM takes of the host while it runs: what its hypervisor was started with. A guest that was
// asked to give memory back can take it again.
func (v VM) Holds() Spec {
	if v.Booted == (Spec{}) {
		return v.Spec
	}
	return v.Booted
}

// Boots notes that a hypervisor was started with all that is asked for.
func (v *VM) Boots() { v.Booted, v.Pending = v.Spec, nil }

// Rests notes that no hypervisor runs: the next start takes everything.
func (v *VM) Rests() { v.Process, v.Booted, v.Pending = nil, Spec{}, nil }

// Awaits notes whether the setting with this key waits for the next start.
func (v *VM) Awaits(key string, waits bool) {
	at, found := slices.BinarySearch(v.Pending, key)
	switch {
	case waits && !found:
		v.Pending = slices.Insert(v.Pending, at, key)
	case !waits && found:
		v.Pending = slices.Delete(v.Pending, at, at+1)
	}
}
