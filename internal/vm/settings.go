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
func (v *VM) Rests() { v.Process, v.Booted, v.Pending, v.Golden = nil, Spec{}, nil, "" }

// Write sets the value of a setting that has no field of its own. An empty one takes the setting away.
func (v *VM) Write(key, value string) {
	switch {
	case value == "":
		delete(v.Settings, key)
	case v.Settings == nil:
		v.Settings = map[string]string{key: value}
	default:
		v.Settings[key] = value
	}
}

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
