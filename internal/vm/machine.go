package vm

// Machine is what the hypervisor is asked to run: a fixed device set, decided before the first boot
// because a snapshot freezes it. Paths are relative to Dir, the hypervisor's working directory, so
// that a copy of the directory is a machine too.
type Machine struct {
	ID       ID
	Dir      string // absolute, on the host
	VCPU     int
	Memory   int64 // bytes, whole MiB
	Kernel   string
	Initrd   string
	BootArgs string
	Drives   []Drive // in device order: vda, vdb …
	NICs     []NIC   // in device order: eth0 …
	CID      uint32  // vsock context id
}

// Drive is a virtio block device.
type Drive struct {
	ID       string // "root", "work"
	Path     string
	ReadOnly bool
	Root     bool
}

// NIC is a virtio network device over a TAP.
type NIC struct {
	ID  string // "eth0"
	TAP string
	MAC string
}

// Names inside a machine's directory.
const (
	FileAPISocket = "firecracker.sock"
	FileVsock     = "v.sock"
	FileKernel    = "vmlinux"
	FileInitrd    = "initrd"
	FileRootDisk  = "root.ext4"
	FileRootCow   = "root.cow" // what was written to a root overlay that is a device
	FileWorkDisk  = "work.ext4"
)
