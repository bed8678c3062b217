package disk_test

import (
	"fmt"
	"testing"

	"banger/internal/feature/disk/disktest"
	"banger/internal/hosttest"
	"banger/internal/vm"
)

// TestContract tries every backend on the fake host. e2e/storage/mapper tries them on the kernel.
func TestContract(t *testing.T) {
	for _, b := range []vm.RootBackend{vm.RootReflink, vm.RootSnapshot, vm.RootCopy} {
		t.Run(string(b), func(t *testing.T) {
			disktest.Contract(t, b, func(t *testing.T) disktest.Place {
				h, made := hosttest.New(), 0
				return disktest.Place{
					Host: h, Layout: vm.Layout{State: "/state"}, Image: "img", VM: h.Make,
					Snapshot: func() string {
						made++
						dir := fmt.Sprintf("/state/golden/%d", made)
						if err := h.Snapshots().Make(dir); err != nil {
							t.Fatal(err)
						}
						return dir
					},
				}
			})
		})
	}
}
