package vm

// Record names a host resource that one VM may hold. It is committed before the resource is made
// and is enough to remove it, with nothing but the kernel's help.
type Record struct {
	VM    ID         `json:"vm"`
	Kind  RecordKind `json:"kind"`
	Name  string     `json:"name"`  // unique within its kind on this host: a device's name, a path
	Until Until      `json:"until"` // when it goes
}

// RecordKind says what sort of resource it is, and so who removes it.
type RecordKind string

// The kinds.
const (
	RecordDir     RecordKind = "dir"     // the VM's directory
	RecordTAP     RecordKind = "tap"     // a network device
	RecordDM      RecordKind = "dm"      // a device of device-mapper
	RecordPorts   RecordKind = "ports"   // its doors, by its id
	RecordProcess RecordKind = "process" // the hypervisor's cgroup and all in it
)

// Until says how long a resource is held.
type Until string

// The lifetimes.
const (
	UntilStop   Until = "stop"   // made at every start
	UntilDelete Until = "delete" // made once
)
