// Package api holds the wire types of /v1, shared by server and client, and the one table that maps
// fault codes to HTTP statuses.
//
// Compatibility: fields are only added, never renamed or given another meaning; a client or daemon
// one release older ignores what it does not know.
package api

import (
	"time"

	"banger/internal/buildinfo"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/vm"
)

// VM is a machine as its owner sees it. Secrets of the record are not in it.
type VM struct {
	ID       vm.ID             `json:"id"`
	Name     string            `json:"name"`
	Owner    int               `json:"owner" doc:"uid of the user who made it"`
	Labels   map[string]string `json:"labels,omitempty"`
	Arch     string            `json:"arch,omitempty"`
	Image    vm.ImageRef       `json:"image"`
	Spec     vm.Spec           `json:"spec"`
	Desired  vm.State          `json:"desired,omitempty"`
	State    vm.State          `json:"state"`
	Reason   string            `json:"reason,omitempty" doc:"why it is in this state, when that needs saying"`
	Address  string            `json:"address" doc:"IPv4 address on the instance's bridge"`
	Address6 string            `json:"address6,omitempty" doc:"IPv6 address beside it"`
	MAC      string            `json:"mac,omitempty"`
	HostKey  string            `json:"host_key,omitempty" doc:"public SSH host key, authorized_keys form"`
	Keys     []string          `json:"authorized_keys,omitempty"`
	PID      int               `json:"pid,omitempty" doc:"of the hypervisor, while it runs"`
	Warm     bool              `json:"warm,omitempty" doc:"it runs and was not booted, but went on from a golden snapshot"`
	Dir      string            `json:"dir,omitempty" doc:"on the daemon's host"`
	Logs     Logs              `json:"logs,omitzero"`
	Created  time.Time         `json:"created,omitzero"`
	Started  time.Time         `json:"started,omitzero"`

	Pending  []string          `json:"pending,omitempty" doc:"keys of the settings that it takes at its next start"`
	Settings map[string]string `json:"settings,omitempty" doc:"those of features that have no field of their own, by key"`

	Policy *Policy `json:"policy,omitempty" doc:"what it may do on the network, by its settings and else by the instance's"`

	RootBackend string `json:"root_backend,omitempty" doc:"how its root overlay is kept: reflink, dm-snapshot or copy"`

	Restart  string `json:"restart,omitempty" doc:"always or no: whether the daemon starts it again when it is down though nobody stopped it"`
	Timezone string `json:"timezone,omitempty" doc:"IANA name that it was made with"`
	Locale   string `json:"locale,omitempty" doc:"as in LANG, that it was made with"`
}

// Logs are the paths, on the daemon's host, of a VM's raw logs.
type Logs struct {
	Console     string `json:"console"`
	Firecracker string `json:"firecracker"`
}

// CreateVM asks for a new machine. Zero values take the daemon's defaults.
type CreateVM struct {
	Name           string            `json:"name,omitempty" doc:"random when empty"`
	Image          string            `json:"image,omitempty" doc:"name, id or id prefix"`
	Labels         map[string]string `json:"labels,omitempty"`
	VCPU           int               `json:"vcpu,omitempty"`
	Memory         int64             `json:"memory,omitempty" doc:"bytes"`
	RootDisk       int64             `json:"root_disk,omitempty" doc:"bytes"`
	WorkDisk       int64             `json:"work_disk,omitempty" doc:"bytes"`
	Timezone       string            `json:"timezone,omitempty" doc:"IANA name, such as Europe/Rome"`
	Locale         string            `json:"locale,omitempty" doc:"as in LANG, such as C.UTF-8"`
	Restart        string            `json:"restart,omitempty" doc:"always or no: whether the daemon starts it again when it is down though nobody stopped it"`
	Settings       map[string]string `json:"settings,omitempty" doc:"values of features' settings by key, as for set-vm"`
	AuthorizedKeys []string          `json:"authorized_keys,omitempty" doc:"authorized_keys lines that may log in as root"`
	Cold           bool              `json:"cold,omitempty" doc:"boot it, also where a golden snapshot could be gone on from"`
}

// ForkVM asks for VMs that begin where another stands.
type ForkVM struct {
	Name  string `json:"name,omitempty" doc:"of the fork, or what the names of several begin with; the VM's when empty"`
	Count int    `json:"count,omitempty" doc:"how many, 1 when zero"`
}

// MakeCheckpoint asks to keep a running VM as it is.
type MakeCheckpoint struct {
	Name string `json:"name" doc:"at most 63 lower-case letters, digits, dots and hyphens"`
}

// Checkpoint is what a VM can be taken back to.
type Checkpoint struct {
	Name    string       `json:"name"`
	Created time.Time    `json:"created"`
	Spec    vm.Spec      `json:"spec" doc:"what the VM had"`
	Size    int64        `json:"size" doc:"bytes that its memory occupies of the disk"`
	Error   *fault.Error `json:"error,omitempty" doc:"why the VM cannot be taken back to it"`
}

// StopVM asks for an orderly shutdown. When the guest is not down in time it is killed.
type StopVM struct {
	Timeout time.Duration `json:"timeout,omitempty" doc:"nanoseconds; the daemon's default when zero"`
}

// DeleteVM says how.
type DeleteVM struct {
	Force bool `json:"force,omitempty" doc:"also when it is running"`
	Now   bool `json:"now,omitempty" doc:"destroy its disks at once instead of putting it in the trash"`
}

// Trashed is a VM in the trash.
type Trashed struct {
	VM
	Deleted time.Time `json:"deleted"`
	Expires time.Time `json:"expires" doc:"when its disks are destroyed, unless the disk runs short of space before"`
}

// Finding is a difference between what the daemon knows and what the host has.
type Finding struct {
	Kind    string       `json:"kind" doc:"interrupted, adrift, ended, outdated, undescribed, unrecorded, trashed, bodiless, orphan or unknown; kinds may be added"`
	Subject string       `json:"subject" doc:"what it is about: a VM, a device, a directory"`
	VM      vm.ID        `json:"vm,omitempty"`
	Name    string       `json:"name,omitempty" doc:"of the VM"`
	Why     string       `json:"why" doc:"what was seen"`
	Repair  string       `json:"repair,omitempty" doc:"what mends it; empty where only its user can"`
	Hint    string       `json:"hint,omitempty" doc:"what its user can do"`
	Done    bool         `json:"done" doc:"it has been mended"`
	Error   *fault.Error `json:"error,omitempty" doc:"why it could not be mended"`
}

// StateUsage is what one part of the state directory comes to.
type StateUsage struct {
	Category    string   `json:"category" doc:"images, boot, vms, checkpoints, golden, trash or failed; categories may be added"`
	Count       int      `json:"count"`
	Allocated   int64    `json:"allocated" doc:"bytes on the disk"`
	Shared      int64    `json:"shared" doc:"bytes of these that other files have too"`
	Reclaimable int64    `json:"reclaimable" doc:"bytes that a prune would free, of the trash only one that is asked to"`
	Unused      []string `json:"unused,omitempty" doc:"names of images that no VM was made from"`
}

// Prune frees what nothing needs.
type Prune struct {
	DryRun bool `json:"dry_run,omitempty" doc:"only tell what it would free"`
	Trash  bool `json:"trash,omitempty" doc:"destroy the VMs in the trash too, everybody's"`
}

// Pruned is a thing that nothing needs.
type Pruned struct {
	Category string       `json:"category"`
	Name     string       `json:"name"`
	Why      string       `json:"why" doc:"it is not needed"`
	Size     int64        `json:"size" doc:"bytes that it has to itself"`
	Done     bool         `json:"done" doc:"it has been removed"`
	Error    *fault.Error `json:"error,omitempty" doc:"why it could not be removed"`
}

// AdoptVM takes back a VM of which there is a directory that the daemon does not know.
type AdoptVM struct {
	VM   string `json:"vm" doc:"id, unique prefix of it, name, or its directory's path"`
	Name string `json:"name,omitempty" doc:"another name, where its own is taken"`
}

// RestoreVM takes a VM back out of the trash.
type RestoreVM struct {
	Name string `json:"name,omitempty" doc:"another name than it had"`
}

// Ping is the agent's answer.
type Ping struct {
	RoundTrip time.Duration `json:"round_trip" doc:"nanoseconds"`
	Agent     string        `json:"agent"`
	Kernel    string        `json:"kernel"`
	OS        string        `json:"os"`
	Uptime    time.Duration `json:"uptime" doc:"of the guest, nanoseconds"`
	AgentRSS  int64         `json:"agent_rss" doc:"bytes, agent and supervisor"`
}

// PullImage asks for an image to be bootstrapped.
type PullImage struct {
	Name string `json:"name" doc:"such as debian:12"`
}

// WarmImage asks for a golden snapshot, which creates of this image and size go on from. Zero values take the daemon's
// defaults.
type WarmImage struct {
	VCPU   int   `json:"vcpu,omitempty"`
	Memory int64 `json:"memory,omitempty" doc:"bytes"`
}

// ImportImage asks for an image of a tree that is sent as a tar stream.
type ImportImage struct {
	Name       string
	KernelFrom string // image whose kernel it boots
	Source     string // where the tree came from, for the manifest
}

// Stream is the protocol that a dial into a VM is upgraded to: the bytes as they are, in both
// directions, each of which can be closed alone. A WebSocket would frame every packet of an SSH
// session and has no half-close.
const Stream = "banger-stream"

// Descriptor is what a request for SSH is upgraded to: one byte, with which the open connection to the guest comes as a
// descriptor (SCM_RIGHTS). The daemon has no part in what is said on it, and may go away.
const Descriptor = "banger-descriptor"

// EventOperation is the kind of server-sent event that holds an operation. Clients pass over kinds that
// they do not know.
const EventOperation = "operation"

// EventChange is the kind of server-sent event that tells of a change, one of package event.
const EventChange = "change"

// Image is an image as clients see it.
type Image struct {
	image.Manifest
	UsedBy []string `json:"used_by,omitempty" doc:"names of your VMs made from it"`
}

// Status describes the daemon.
type Status struct {
	Build       buildinfo.Info `json:"build"`
	PID         int            `json:"pid"`
	Started     time.Time      `json:"started"`
	Instance    vm.Tag         `json:"instance"`
	StateDir    string         `json:"state_dir"`
	RuntimeDir  string         `json:"runtime_dir"`
	Socket      string         `json:"socket"`
	Log         string         `json:"log"`
	Subnet      string         `json:"subnet,omitempty"`
	Subnet6     string         `json:"subnet6,omitempty" doc:"unique local IPv6 addresses of the instance"`
	Bridge      string         `json:"bridge" doc:"the first one; others have a number behind its name"`
	SpareTAPs   SpareTAPs      `json:"spare_taps"`
	Listeners   []Listener     `json:"listeners,omitempty" doc:"TCP and UDP ports of the daemon"`
	Firecracker string         `json:"firecracker,omitempty" doc:"version, or empty when none was found"`
	VMs         map[string]int `json:"vms" doc:"count by state"`
	Images      int            `json:"images"`
	Operations  []op.Operation `json:"operations,omitempty" doc:"those of yours that run now"`
	RSS         int64          `json:"rss" doc:"bytes resident"`
	Commits     int64          `json:"commits" doc:"durable commits since start"`
	Children    int64          `json:"children" doc:"child processes since start"`
	Goroutines  int            `json:"goroutines"`
	Rebuilt     *Rebuilt       `json:"rebuilt,omitempty" doc:"when this daemon had to make its database anew"`
}

// Listener is a port that the daemon listens on, or would like to.
type Listener struct {
	Name    string `json:"name" doc:"what is served there, such as dns"`
	Address string `json:"address"`
	Error   string `json:"error,omitempty" doc:"why it is not served there"`
}

// DNS tells whether the host's programs find VMs by name.
type DNS struct {
	Server string    `json:"server,omitempty" doc:"where the daemon answers them; empty where it does not"`
	Wiring string    `json:"wiring,omitempty" doc:"what was set up to ask it: systemd-resolved or NetworkManager; empty where nothing was"`
	Proof  *DNSProof `json:"proof,omitempty" doc:"what they are told of a VM of yours; none where none runs, or nothing was set up"`
}

// DNSProof is a name that was resolved as the host's programs do.
type DNSProof struct {
	Name    string       `json:"name"`
	Address string       `json:"address" doc:"that it should have"`
	Error   *fault.Error `json:"error,omitempty" doc:"why it has not"`
}

// DNSRequest sets up or takes back what the host's resolver is told.
type DNSRequest struct {
	DryRun bool `json:"dry_run,omitempty" doc:"only say what would be done"`
}

// DNSChange is what that came to.
type DNSChange struct {
	Steps []string `json:"steps,omitempty" doc:"what was done, or would be"`
	Done  bool     `json:"done"`
	DNS   DNS      `json:"dns" doc:"as it is now"`
}

// SpareTAPs tells of the TAPs that are kept ready while VMs run.
type SpareTAPs struct {
	Idle int `json:"idle" doc:"that no VM has"`
	Size int `json:"size" doc:"how many are to be idle while a VM runs; 0 keeps none"`
}

// Rebuilt tells of a database that was damaged or missing, and was made anew of the VMs' own descriptions.
type Rebuilt struct {
	At       time.Time `json:"at"`
	Why      string    `json:"why"`
	SetAside []string  `json:"set_aside,omitempty" doc:"where the damaged one is, on the daemon's host"`
	VMs      int       `json:"vms" doc:"that were taken in"`
	Left     []string  `json:"left,omitempty" doc:"why VM directories were not; their disks are untouched"`
}

// Upgrade is the answer to a request that the daemon execute a newer build of itself.
type Upgrade struct {
	From buildinfo.Info `json:"from"`
	To   buildinfo.Info `json:"to"`
	Done bool           `json:"done" doc:"false when the executable on disk is not newer"`
}

// Check is one finding of doctor.
type Check struct {
	Name   string      `json:"name"`
	Result CheckResult `json:"result"`
	Detail string      `json:"detail" doc:"what was found, one line"`
	Fix    string      `json:"fix,omitempty" doc:"what to do, one line"`
}

// CheckResult grades a check.
type CheckResult string

// The grades. Only CheckFailed makes doctor fail.
const (
	CheckOK     CheckResult = "ok"
	CheckWarn   CheckResult = "warning"
	CheckFailed CheckResult = "failed"
)
