package firecracker

import (
	"encoding/json"

	"banger/internal/vm"
)

// Names in a machine's directory that are this driver's own.
const (
	fileConfig  = "firecracker.json"
	fileConsole = "console" // FIFO
	fileLog     = "log"     // FIFO
)

const mib = 1 << 20

// configure describes a machine to Firecracker. The devices that snapshots freeze are all there from
// the first boot on:
//
//   - disks honour the guest's flushes (Writeback), or an fsync in the guest would promise nothing;
//   - the balloon starts empty and gives memory back before the guest kills anything. Its statistics
//     stay off: before 1.14.4 a guest can stall the hypervisor with them;
//   - entropy is the guest's only source of it before it has run for a while.
func configure(m vm.Machine) ([]byte, error) {
	c := config{
		BootSource:        bootSource{KernelImagePath: m.Kernel, InitrdPath: m.Initrd, BootArgs: m.BootArgs},
		MachineConfig:     machineConfig{VCPUCount: m.VCPU, MemSizeMiB: m.Memory / mib},
		Drives:            []drive{},
		NetworkInterfaces: []networkInterface{},
		Vsock:             vsock{GuestCID: m.CID, UDSPath: vm.FileVsock},
		Balloon:           balloon{DeflateOnOOM: true},
	}
	for _, d := range m.Drives {
		c.Drives = append(c.Drives, drive{
			DriveID: d.ID, PathOnHost: d.Path, IsRootDevice: d.Root, IsReadOnly: d.ReadOnly,
			CacheType: writeback, IOEngine: syncEngine,
		})
	}
	for _, n := range m.NICs {
		c.NetworkInterfaces = append(c.NetworkInterfaces, networkInterface{IfaceID: n.ID, HostDevName: n.TAP, GuestMAC: n.MAC})
	}
	return json.MarshalIndent(c, "", "  ")
}
