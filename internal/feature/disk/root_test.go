package disk_test

import (
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/feature/disk"
	"banger/internal/hosttest"
	"banger/internal/vm"
)

// TestChoice holds what a new VM's root overlay is kept by, and that doctor says so and why.
func TestChoice(t *testing.T) {
	for name, c := range map[string]struct {
		wish     vm.RootBackend
		shares   bool
		noMapper bool
		want     vm.RootBackend
		why      string
		code     fault.Code
	}{
		"clones":                      {shares: true, want: vm.RootReflink, why: "reflink: files in the state directory share blocks"},
		"clones, no device-mapper":    {shares: true, noMapper: true, want: vm.RootReflink, why: "reflink: "},
		"no clones":                   {want: vm.RootSnapshot, why: "dm-snapshot: files in the state directory share no blocks"},
		"neither":                     {noMapper: true, want: vm.RootCopy, why: `copy: files in the state directory share no blocks, and there is no device-mapper for it: use device-mapper's "snapshot": no such device`},
		"a wish for clones":           {wish: vm.RootReflink, shares: true, want: vm.RootReflink, why: "reflink: "},
		"a wish for clones, no clone": {wish: vm.RootReflink, want: vm.RootCopy, why: "copy: though reflink is configured"},
		"a wish for copies":           {wish: vm.RootCopy, shares: true, want: vm.RootCopy, why: "copy: as it is configured"},
		"a wish for devices":          {wish: vm.RootSnapshot, shares: true, want: vm.RootSnapshot, why: "dm-snapshot: as it is configured"},
		"a wish that cannot be met":   {wish: vm.RootSnapshot, shares: true, noMapper: true, code: fault.Requirement},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New()
			h.SetRoom(func(r *hosttest.Room) { r.NoMapper = c.noMapper })
			f := disk.Root(vm.Layout{State: "/state"}, "ab12", disk.Choice{Wish: c.wish, Shares: c.shares}, h, h, h.Devices())
			var v vm.VM
			err := f.Draft(&v)
			if c.code != "" {
				if !fault.Is(err, c.code) {
					t.Fatalf("it is drafted: %v", err)
				}
			} else if err != nil || v.RootBackend != c.want {
				t.Errorf("%s, %v", v.RootBackend, err)
			}
			why, err := f.Checks()[0].Probe(t.Context())
			if !strings.HasPrefix(why, c.why) || fault.CodeOf(err) != c.code {
				t.Errorf("doctor says %q, %v", why, err)
			}
			kept := vm.VM{RootBackend: vm.RootCopy}
			if err := f.Draft(&kept); err != nil || kept.RootBackend != vm.RootCopy {
				t.Errorf("what was decided becomes %s, %v", kept.RootBackend, err)
			}
		})
	}
}

// TestACloneThatMustBeACopy holds that the stage tells of it.
func TestACloneThatMustBeACopy(t *testing.T) {
	h := &host{}
	f := disk.Root(vm.Layout{State: "/state"}, "ab12", disk.Choice{Shares: true}, h, h, nil)
	for kept, want := range map[vm.RootBackend]string{
		vm.RootReflink: "copy, since the file system no longer shares blocks",
		vm.RootCopy:    "copy",
		"":             "copy",
	} {
		var said string
		if warning, err := f.Provision(t.Context(), vm.VM{RootBackend: kept}, "", func(text string) { said = text }); err != nil || warning != "" || said != want {
			t.Errorf("%q: %q, %v", kept, said, err)
		}
	}
}
