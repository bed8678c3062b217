package cli_test

import (
	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/vm"
)

// diskUsage is of a state directory with some of everything.
func diskUsage() []api.StateUsage {
	return []api.StateUsage{
		{Category: "images", Count: 2, Allocated: 900 * vm.MiB, Shared: 400 * vm.MiB, Unused: []string{"debian:13"}},
		{Category: "golden", Count: 1, Allocated: 500 * vm.MiB, Shared: 420 * vm.MiB, Reclaimable: 80 * vm.MiB},
		{Category: "failed", Count: 0},
		{Category: "tapes", Count: 1, Allocated: 1},
	}
}

// prune frees what there is once, all but what is stuck.
func (f *fake) prune(r api.Prune) []api.Pruned {
	all := []api.Pruned{{Category: "golden", Name: "0123456789abcdef (debian:12)", Why: "no running VM shares its memory", Size: 80 * vm.MiB}}
	if r.Trash {
		all = append(all, api.Pruned{Category: "trash", Name: "gone\x1b[2J", Why: "it was deleted", Size: 7 * vm.MiB})
	}
	if f.pruned {
		all = all[:0]
	}
	for i := range all {
		switch {
		case r.DryRun:
		case all[i].Category == "trash":
			all[i].Error = fault.New(fault.Internal, "input/output error").WithOp("remove", "/x")
		default:
			all[i].Done, f.pruned = true, true
		}
	}
	return all
}
