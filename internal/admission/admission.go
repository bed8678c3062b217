// Package admission decides what a host can still take: guests' memory, disks' growth, an owner's share.
// It is pure: what the host has and who runs on it comes in, a verdict goes out.
package admission

import (
	"fmt"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Rules are what the daemon's configuration says. Zero values: no overcommitment beyond the memory that
// there is, DefaultLowWater, no quotas.
type Rules struct {
	Overcommit float64 // guests' memory together, as a multiple of what the host has for them
	LowWater   int64   // bytes that stay free on the file system of VMs' disks
	Quota      Quota   // of every owner but those in Users
	Users      map[int]Quota
}

// Quota bounds what the VMs of one owner may take together. Zero is no bound.
type Quota struct {
	VMs    int
	VCPU   int   // of VMs that run
	Memory int64 // bytes, of VMs that run
	Disk   int64 // bytes, the disks' sizes in the guests
}

// Space is the room on the file system of VMs' disks, in bytes.
type Space struct {
	Free int64
	Size int64
}

// Runs reports whether a VM in this state has, or is about to have, a hypervisor.
func Runs(s vm.State) bool {
	switch s {
	case vm.Creating, vm.Starting, vm.Running, vm.Paused, vm.Stopping:
		return true
	case vm.Stopped, vm.Crashed, vm.Deleting, vm.Restoring:
	}
	return false
}

// reserve is the part of a host's memory that stays its own: a sixteenth, at most 2 GiB. What is not
// guests' grows little with the host.
func reserve(memory int64) int64 { return min(memory/16, 2*vm.GiB) }

// overhead is what a VM takes beyond its guest's memory: 5 MiB for Firecracker, the bound that its
// specification promises, and two page tables, the hypervisor's and the process's, of 8 bytes for each 4 KiB.
func overhead(memory int64) int64 { return 5*vm.MiB + memory/256 }

// Memory reports whether v may run beside the others on a host with this much memory. A guest takes memory
// as it touches it and gives none back, so every guest comes to its full size in time; beyond what there
// is, the kernel kills one.
func (r Rules) Memory(host int64, others []vm.VM, v vm.VM) error {
	factor := r.Overcommit
	if factor == 0 {
		factor = 1
	}
	room := int64(float64(host-reserve(host)) * factor)
	taken, n := int64(0), 0
	for _, o := range others {
		if o.ID != v.ID && Runs(o.State) {
			has := o.Holds().Memory
			taken += has + overhead(has)
			n++
		}
	}
	if taken+v.Spec.Memory+overhead(v.Spec.Memory) <= room {
		return nil
	}
	const raise = "or raise admission.memory_overcommit in the daemon's configuration"
	if n == 0 {
		return fault.New(fault.Exhausted, "its %s of memory do not fit: this host has %s for VMs", vm.FormatSize(v.Spec.Memory), vm.FormatSize(room)).
			WithHint("give it less memory, %s", raise)
	}
	return fault.New(fault.Exhausted, "its %s of memory do not fit: %s %s of the %s that this host has for VMs",
		vm.FormatSize(v.Spec.Memory), running(n), vm.FormatSize(taken), vm.FormatSize(room)).
		WithHint("stop a VM, give this one less memory, %s", raise)
}

// Share reports whether v's owner may have v, new, among all VMs, running or not.
func (r Rules) Share(all []vm.VM, v vm.VM) error {
	quota, key := r.quota(v.Owner)
	vms, disk := 1, disks(v)
	for _, o := range all {
		if o.Owner == v.Owner && o.ID != v.ID {
			vms++
			disk += disks(o)
		}
	}
	switch {
	case over(vms, quota.VMs):
		return refuse(key+"vms", "delete a VM", "it would be VM number %d of uid %d, who may have %d", vms, v.Owner, quota.VMs)
	case over(disk, quota.Disk):
		return refuse(key+"disk", "delete a VM, or choose smaller disks", "the disks of uid %d would have %s, and may have %s",
			v.Owner, vm.FormatSize(disk), vm.FormatSize(quota.Disk))
	}
	return nil
}

// RunningShare reports whether v's owner may run v beside what runs already.
func (r Rules) RunningShare(all []vm.VM, v vm.VM) error {
	quota, key := r.quota(v.Owner)
	vcpu, memory := v.Spec.VCPU, v.Spec.Memory
	for _, o := range all {
		if o.Owner == v.Owner && o.ID != v.ID && Runs(o.State) {
			vcpu += o.Holds().VCPU
			memory += o.Holds().Memory
		}
	}
	switch {
	case over(vcpu, quota.VCPU):
		return refuse(key+"vcpu", "stop a VM, or give this one fewer vCPUs", "the running VMs of uid %d would have %d vCPUs, and may have %d",
			v.Owner, vcpu, quota.VCPU)
	case over(memory, quota.Memory):
		return refuse(key+"memory", "stop a VM, or give this one less memory", "the running VMs of uid %d would have %s of memory, and may have %s",
			v.Owner, vm.FormatSize(memory), vm.FormatSize(quota.Memory))
	}
	return nil
}

// quota is an owner's, and where it is in the configuration.
func (r Rules) quota(owner int) (q Quota, key string) {
	if q, ok := r.Users[owner]; ok {
		return q, fmt.Sprintf("user_quota.%d.", owner)
	}
	return r.Quota, "quota."
}

func disks(v vm.VM) int64 { return v.Spec.RootDisk + v.Spec.WorkDisk }

func over[T int | int64](n, quota T) bool { return quota > 0 && n > quota }

func refuse(key, remedy, format string, args ...any) error {
	return fault.New(fault.Exhausted, format, args...).
		WithHint("%s, or have %s raised in the daemon's configuration", remedy, key)
}

func running(n int) string {
	if n == 1 {
		return "1 other running VM has"
	}
	return fmt.Sprintf("%d other running VMs have", n)
}
