package admission_test

import (
	"strings"
	"testing"
	"time"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/vm"
)

func machine(id string, owner int, state vm.State, vcpu int, memory int64) vm.VM {
	return vm.VM{ID: vm.ID(id), Owner: owner, State: state, Spec: vm.Spec{VCPU: vcpu, Memory: memory, RootDisk: vm.GiB, WorkDisk: vm.GiB}}
}

// says compares an error's text and hint with what they must contain; "" wants none.
func says(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && err == nil:
		t.Errorf("admitted, want %q", want)
	case want != "" && (!fault.Is(err, fault.Exhausted) || fault.From(err).Msg != want || fault.From(err).Hint == ""):
		t.Errorf("got %q (%s, hint %q)\nwant %q", err, fault.CodeOf(err), fault.From(err).Hint, want)
	}
}

func TestMemory(t *testing.T) {
	states := []vm.State{vm.Creating, vm.Starting, vm.Running, vm.Paused, vm.Stopping, vm.Stopped, vm.Crashed, vm.Deleting}
	var others []vm.VM
	for i, s := range states {
		others = append(others, machine(string(rune('a'+i)), 1, s, 1, vm.GiB))
	}
	for name, c := range map[string]struct {
		factor float64
		host   int64
		memory int64
		id     string
		want   string
		alone  bool
	}{
		"room for one more":          {factor: 0, host: 8 * vm.GiB, memory: 2 * vm.GiB, id: "new", want: ""},
		"one MiB too much":           {factor: 1, host: 8 * vm.GiB, memory: 2504 * vm.MiB, id: "new", want: "its 2.4 GiB of memory do not fit: 5 other running VMs have 5 GiB of the 7.5 GiB that this host has for VMs"},
		"overcommitted":              {factor: 2, host: 8 * vm.GiB, memory: 2504 * vm.MiB, id: "new", want: ""},
		"undercommitted":             {factor: 0.5, host: 8 * vm.GiB, memory: 64 * vm.MiB, id: "new", want: "its 64 MiB of memory do not fit: 5 other running VMs have 5 GiB of the 3.8 GiB that this host has for VMs"},
		"it does not count itself":   {factor: 1, host: 5 * vm.GiB, memory: 64 * vm.MiB, id: "a", want: ""},
		"more than the whole host":   {factor: 1, host: 8 * vm.GiB, memory: 1000 * vm.GiB, id: "new", want: "its 1000 GiB of memory do not fit: 5 other running VMs have 5 GiB of the 7.5 GiB that this host has for VMs"},
		"more than an empty host":    {host: 8 * vm.GiB, memory: 8 * vm.GiB, id: "new", alone: true, want: "its 8 GiB of memory do not fit: this host has 7.5 GiB for VMs"},
		"a large host keeps 2 GiB":   {factor: 1, host: 64 * vm.GiB, memory: 56 * vm.GiB, id: "new", want: ""},
		"and needs those for itself": {factor: 1, host: 64 * vm.GiB, memory: 57 * vm.GiB, id: "new", want: "its 57 GiB of memory do not fit: 5 other running VMs have 5 GiB of the 62 GiB that this host has for VMs"},
	} {
		t.Run(name, func(t *testing.T) {
			r := admission.Rules{Overcommit: c.factor}
			others := others
			if c.alone {
				others = nil
			}
			says(t, r.Memory(c.host, others, machine(c.id, 2, vm.Creating, 1, c.memory)), c.want)
		})
	}
}

func TestShares(t *testing.T) {
	all := []vm.VM{
		machine("a", 1000, vm.Running, 2, vm.GiB), machine("b", 1000, vm.Stopped, 8, 8*vm.GiB),
		machine("c", 1001, vm.Running, 8, 8*vm.GiB),
	}
	next := machine("new", 1000, vm.Creating, 2, vm.GiB)
	for name, c := range map[string]struct {
		quota     admission.Quota
		have, run string
	}{
		"no quota":       {},
		"just enough":    {quota: admission.Quota{VMs: 3, VCPU: 4, Memory: 2 * vm.GiB, Disk: 6 * vm.GiB}},
		"too many VMs":   {quota: admission.Quota{VMs: 2}, have: "it would be VM number 3 of uid 1000, who may have 2"},
		"too large":      {quota: admission.Quota{Disk: 5 * vm.GiB}, have: "the disks of uid 1000 would have 6 GiB, and may have 5 GiB"},
		"too many vCPUs": {quota: admission.Quota{VCPU: 3}, run: "the running VMs of uid 1000 would have 4 vCPUs, and may have 3"},
		"too much memory": {
			quota: admission.Quota{Memory: vm.GiB}, run: "the running VMs of uid 1000 would have 2 GiB of memory, and may have 1 GiB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []admission.Rules{
				{Quota: c.quota, Users: map[int]admission.Quota{1001: {VMs: 1}}},
				{Quota: admission.Quota{VMs: 1, VCPU: 1}, Users: map[int]admission.Quota{1000: c.quota}},
			} {
				says(t, r.Share(all, next), c.have)
				says(t, r.RunningShare(all, next), c.run)
			}
		})
	}
}

func TestDisk(t *testing.T) {
	for name, c := range map[string]struct {
		mark        int64
		space       admission.Space
		now, growth int64
		want        string
		warning     string
	}{
		"all fits":     {0, admission.Space{Free: 50 * vm.GiB, Size: 100 * vm.GiB}, vm.GiB, 45 * vm.GiB, "", ""},
		"may not fit":  {0, admission.Space{Free: 50 * vm.GiB, Size: 100 * vm.GiB}, vm.GiB, 46 * vm.GiB, "", "if all VMs filled their disks, these would take 46 GiB more; 45 GiB are left above the low-water mark, where VMs are paused"},
		"cannot fit":   {vm.GiB, admission.Space{Free: 2 * vm.GiB, Size: 100 * vm.GiB}, 2 * vm.GiB, 0, "its disks take 2 GiB at once, and 1 GiB are left above the low-water mark of 1 GiB", ""},
		"below":        {0, admission.Space{Free: 4 * vm.GiB, Size: 100 * vm.GiB}, 0, 0, "the disk is below its low-water mark: 4 GiB are free, the mark is at 5 GiB", ""},
		"a small disk": {0, admission.Space{Free: 100 * vm.MiB, Size: 2000 * vm.MiB}, 0, 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			warning, err := admission.Rules{LowWater: c.mark}.Disk(c.space, c.now, c.growth)
			says(t, err, c.want)
			if warning != c.warning {
				t.Errorf("warned %q, want %q", warning, c.warning)
			}
		})
	}
}

func TestLevel(t *testing.T) {
	r := admission.Rules{LowWater: 4 * vm.GiB}
	for free, want := range map[int64]admission.Level{
		0: admission.Low, 4*vm.GiB - 1: admission.Low, 4 * vm.GiB: admission.Scarce,
		5*vm.GiB - 1: admission.Scarce, 5 * vm.GiB: admission.Enough,
	} {
		if got := r.Level(admission.Space{Free: free, Size: vm.TiB}); got != want {
			t.Errorf("%s free: %s, want %s", vm.FormatSize(free), got, want)
		}
	}
	if text := r.Full(admission.Space{Free: vm.GiB, Size: vm.TiB}); !strings.Contains(text, "1 GiB are free, less than the low-water mark of 4 GiB") {
		t.Error(text)
	}
}

func TestLook(t *testing.T) {
	for free, want := range map[int64]time.Duration{
		0: 20 * time.Millisecond, vm.GiB: time.Second / 16, 4 * vm.GiB: time.Second / 4, vm.TiB: time.Second,
	} {
		if got := admission.Look(admission.Space{Free: free, Size: vm.TiB}); got != want {
			t.Errorf("%s free: %s, want %s", vm.FormatSize(free), got, want)
		}
	}
}

func TestAQuotasHintNamesItsKey(t *testing.T) {
	r := admission.Rules{Quota: admission.Quota{VCPU: 1}, Users: map[int]admission.Quota{1000: {VMs: -1, VCPU: 2}}}
	for owner, want := range map[int]string{
		1000: "stop a VM, or give this one fewer vCPUs, or have user_quota.1000.vcpu raised in the daemon's configuration",
		1001: "stop a VM, or give this one fewer vCPUs, or have quota.vcpu raised in the daemon's configuration",
	} {
		if f := fault.From(r.RunningShare(nil, machine("new", owner, vm.Creating, 4, vm.GiB))); f == nil || f.Hint != want {
			t.Errorf("uid %d: %+v", owner, f)
		}
	}
}
