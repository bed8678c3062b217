package cli_test

import (
	"net/http"
	"slices"
	"time"

	"banger/internal/vm"
)

// stats is what VMs use: those that run use more at each look, a second of CPU within four.
func (f *fake) stats(r *http.Request) (any, error) {
	f.looks++
	q := r.URL.Query()
	for _, name := range q["vm"] {
		if _, err := f.find(name); err != nil {
			return nil, err
		}
	}
	labels, err := vm.ParseSelector(q["label"])
	if err != nil {
		return nil, err
	}
	all := []vm.Stats{}
	for _, v := range f.vms {
		if !labels.Matches(v.Labels) || len(q["vm"]) > 0 && !slices.Contains(q["vm"], v.Name) {
			continue
		}
		s := vm.Stats{
			ID: v.ID, Name: v.Name, State: v.State, VCPU: v.Spec.VCPU, Memory: v.Spec.Memory, At: time.Unix(int64(4*f.looks), 0).UTC(),
			Root: vm.DiskUsage{Allocated: 100 * vm.MiB, Size: 4 * vm.GiB}, Work: vm.DiskUsage{Allocated: vm.GiB, Size: 8 * vm.GiB},
		}
		if v.State == vm.Running {
			s.Host = &vm.Usage{CPU: time.Duration(f.looks) * time.Second, RSS: 300 * vm.MiB}
			s.Network = &vm.Traffic{RxBytes: int64(f.looks) * 8192, RxPackets: 7}
			s.Guest = &vm.GuestUsage{Total: 2 * vm.GiB, Available: vm.GiB, At: s.At}
			if q.Get("pss") == "true" {
				s.Host.PSS = 200 * vm.MiB
			}
		}
		all = append(all, s)
	}
	return all, nil
}
