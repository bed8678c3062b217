// Package snapshot holds the nouns of a machine that was caught as it ran: what such a snapshot freezes, by what it is
// found again, and who may go on from it. No I/O.
//
// A snapshot is a directory. A golden one is of a guest that has just booted and is nobody's: creates go on from it. A
// checkpoint is of one VM, which goes back to it.
package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Files of a snapshot's directory, beside those that features keep their disks in.
const (
	FileManifest = "manifest.json"
	FileState    = "state"  // the hypervisor's: vCPUs and devices
	FileMemory   = "memory" // the guest's, sparse
	// FileWorkingSet lists the parts of the memory that a guest needs first; there is none until one has.
	FileWorkingSet = "working-set"
)

// Schema is of the manifest. Another one is not gone on from.
const Schema = 1

// Frozen is everything that a snapshot freezes: whoever goes on from it has all of this, whatever he asked for.
type Frozen struct {
	Image       string `json:"image"`      // its id, a digest over what it is made of
	ImageRoot   string `json:"image_root"` // its root file as it was: one that was written to is another image
	VCPU        int    `json:"vcpu"`
	Memory      int64  `json:"memory"` // bytes
	Kernel      string `json:"kernel"` // SHA-256 of the vmlinux
	Agent       string `json:"agent"`  // digest of the agent; the rest of the initrd is the image's
	BootArgs    string `json:"boot_args"`
	Devices     string `json:"devices"`     // in their order
	Hypervisor  string `json:"hypervisor"`  // name and version
	CPU         string `json:"cpu"`         // the host's processor, model and features
	HostKernel  string `json:"host_kernel"` // as in uname -r: KVM is part of it
	RootBackend string `json:"root_backend,omitempty"`
}

// Key is by what a golden snapshot is found: 16 hexadecimal digits of a digest over all of it.
func (f Frozen) Key() string {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Devices lists a machine's devices in the order in which its guest sees them. Every guest has the same vsock context
// id, so that is not among it.
func Devices(m vm.Machine) string {
	var all []string
	for _, d := range m.Drives {
		all = append(all, fmt.Sprintf("block %s %s", d.ID, d.Path))
	}
	for _, n := range m.NICs {
		all = append(all, "net "+n.ID)
	}
	return strings.Join(append(all, "vsock", "rng", "balloon"), ", ")
}

// Differs says, in one line, in what two machines differ that a snapshot of the one cannot become the other; "" where it can.
func (f Frozen) Differs(now Frozen) string {
	for _, d := range []struct{ what, was, is string }{
		{"Firecracker", f.Hypervisor, now.Hypervisor},
		{"the processor", f.CPU, now.CPU},
		{"the host's kernel", f.HostKernel, now.HostKernel},
		{"the image", f.Image, now.Image},
		{"the image's root file", f.ImageRoot, now.ImageRoot},
		{"the number of vCPUs", fmt.Sprint(f.VCPU), fmt.Sprint(now.VCPU)},
		{"memory", vm.FormatSize(f.Memory), vm.FormatSize(now.Memory)},
		{"the set of devices", f.Devices, now.Devices},
		{"the way in which the root disk is kept", f.RootBackend, now.RootBackend},
	} {
		if d.was != d.is {
			return fmt.Sprintf("%s was %q then and is %q now", d.what, d.was, d.is)
		}
	}
	return ""
}

// Manifest describes a snapshot. It is a file format: fields are only ever added. What identifies the files is filled
// in when the snapshot is sealed.
type Manifest struct {
	Schema  int       `json:"schema"`
	Name    string    `json:"name"` // of a checkpoint; of a golden one its key
	Created time.Time `json:"created"`
	Frozen  Frozen    `json:"frozen"`
	VM      vm.VM     `json:"vm"` // as it was then; of a golden one only what is asked for

	StateSHA256 string  `json:"state_sha256"`
	Memory      vm.File `json:"memory"`
	// MemorySHA256 is of the whole memory, once it was read; empty until then.
	MemorySHA256 string `json:"memory_sha256,omitempty"`
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// CheckName reports why a checkpoint cannot have this name, or nil.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fault.New(fault.Invalid, "it is not a valid name").WithOp("name checkpoint", name).
			WithHint("use at most 63 lower-case letters, digits, '.' and '-', such as before-upgrade")
	}
	return nil
}
