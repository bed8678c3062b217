// Package vm holds the nouns of a virtual machine: its identity, what its owner asked for, what is
// observed of it, and the rules that derive one from the other. Nothing here performs I/O.
package vm

import (
	"net/netip"
	"time"
)

// VM is one persistent machine. It is what vm.json holds, so its JSON form is a file format:
// fields are only ever added.
type VM struct {
	ID     ID                `json:"id"`
	Name   string            `json:"name"`
	Owner  int               `json:"owner"` // uid of the user who made it
	Labels map[string]string `json:"labels,omitempty"`
	Arch   string            `json:"arch"`  // as in GOARCH
	Image  ImageRef          `json:"image"` // what its root overlay was made from
	Spec   Spec              `json:"spec"`

	RootBackend RootBackend `json:"root_backend,omitempty"` // how its root overlay is kept, for life

	Timezone string `json:"timezone,omitempty"` // IANA name; empty leaves it to the guest
	Locale   string `json:"locale,omitempty"`   // as in LANG; empty leaves it to the guest

	// Settings are those of features that have no field of their own, by key, as the owner wrote them.
	Settings map[string]string `json:"settings,omitempty"`
	// Pending are the keys of settings that a VM which runs takes at its next start.
	Pending []string `json:"pending,omitempty"`
	// Booted is what its hypervisor was started with, whatever Spec has become since. Zero while there is none, and
	// for one that was started by a banger that did not know.
	Booted Spec `json:"booted,omitzero"`

	// Template is a VM of nobody's that lives until a snapshot of it is taken. It is never anything but Creating.
	Template bool `json:"template,omitempty"`

	Desired State   `json:"desired"` // Running or Stopped
	State   State   `json:"state"`   // what was last observed
	Reason  string  `json:"reason,omitempty"`
	Restart Restart `json:"restart,omitempty"`

	Lease   Lease     `json:"lease"`
	Access  Access    `json:"access"`
	Process *Process  `json:"process,omitempty"` // the hypervisor's, while it lives
	Golden  string    `json:"golden,omitempty"`  // key of the golden snapshot that its hypervisor went on from, while it lives
	Created time.Time `json:"created"`
	Started time.Time `json:"started,omitzero"` // last time it became ready
	Changed time.Time `json:"changed"`
	Deleted time.Time `json:"deleted,omitzero"` // when it was put in the trash; zero when it is not there
}

// ImageRef names an image by content and by the name it had when the VM was made.
type ImageRef struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Spec is what the owner asked for. Sizes are bytes.
type Spec struct {
	VCPU     int   `json:"vcpu"`
	Memory   int64 `json:"memory"`
	RootDisk int64 `json:"root_disk"`
	WorkDisk int64 `json:"work_disk"`
}

// Lease is the VM's place on the instance's bridge. The MAC is derived from the address, so that a
// neighbour's stale ARP entry for a reused address still finds the right machine.
type Lease struct {
	Address netip.Prefix `json:"address"` // with the subnet's length
	Gateway netip.Addr   `json:"gateway"`

	Address6 netip.Prefix `json:"address6,omitzero"` // a unique local one, with its subnet's length; VMs of before it have none
	Gateway6 netip.Addr   `json:"gateway6,omitzero"`

	MAC    string `json:"mac"`
	TAP    string `json:"tap"`    // name of the host's device, at most 15 bytes
	Bridge string `json:"bridge"` // name of the host's bridge
	CID    uint32 `json:"cid"`    // vsock context id as the guest sees it
}

// Access is how its owner reaches it over SSH.
type Access struct {
	AuthorizedKeys []string `json:"authorized_keys,omitempty"` // one authorized_keys line each
	HostKey        string   `json:"host_key"`                  // public, authorized_keys form
	HostKeyPrivate string   `json:"host_key_private"`          // OpenSSH PEM; never leaves the daemon but to the guest
	MachineID      string   `json:"machine_id"`                // 32 hex digits
}

// Process identifies a hypervisor process beyond the reuse of its pid and beyond a reboot.
type Process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks since boot, field 22 of /proc/PID/stat
	BootID    string `json:"boot_id"`    // /proc/sys/kernel/random/boot_id
}

// State is where a VM stands.
type State string

// The states. Creating, Starting, Stopping, Deleting and Restoring are passing: an operation holds the VM meanwhile.
const (
	Creating State = "creating"
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Paused   State = "paused" // its hypervisor lives and its vCPUs stand still
	Stopping State = "stopping"
	Crashed  State = "crashed"
	Deleting State = "deleting"
	// Restoring is on the way back from the trash.
	Restoring State = "restoring"
)

// States lists them all.
func States() []State {
	return []State{Creating, Stopped, Starting, Running, Paused, Stopping, Crashed, Deleting, Restoring}
}
