package vm

import (
	"maps"
	"slices"
)

// Clone returns a copy that shares nothing with v that either could change.
func (v VM) Clone() VM {
	v.Labels = maps.Clone(v.Labels)
	v.Settings = maps.Clone(v.Settings)
	v.Pending = slices.Clone(v.Pending)
	v.Access.AuthorizedKeys = slices.Clone(v.Access.AuthorizedKeys)
	if v.Process != nil {
		v.Process = new(*v.Process)
	}
	return v
}
