// Package image holds the nouns of a boot set: its name, its manifest and their rules. No I/O.
package image

import (
	"regexp"
	"strings"
	"time"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Files of an image's directory beside its manifest.
const (
	FileManifest     = "manifest.json"
	FileRoot         = "root.ext4"
	FileWorkSeed     = "work.ext4"
	FileKernel       = "vmlinux"
	FileModules      = "modules.cpio"
	FileKernelConfig = "kernel.config"
)

// Manifest describes one image. It is a file format: fields are only ever added.
type Manifest struct {
	ID       string    `json:"id"`   // 12 hex digits of a digest over what the image is made of
	Name     string    `json:"name"` // "debian:12"
	Arch     string    `json:"arch"` // as in GOARCH
	Created  time.Time `json:"created"`
	Source   string    `json:"source"` // "debian bookworm", "import rootfs.tar.zst"
	OS       string    `json:"os"`     // PRETTY_NAME of os-release
	Kernel   Kernel    `json:"kernel"`
	Root     Disk      `json:"root"`
	WorkSeed Seed      `json:"work_seed"`
	Init     string    `json:"init"` // path of the init to execute
	Services []Service `json:"services,omitempty"`

	Packages       []Package         `json:"packages,omitempty"`
	PackagesSHA256 string            `json:"packages_sha256,omitempty"`
	Tools          map[string]string `json:"tools,omitempty"` // program to version
}

// Kernel is the boot kernel and what its initrd carries.
type Kernel struct {
	Version string   `json:"version"` // as in uname -r
	SHA256  string   `json:"sha256"`  // of the vmlinux
	Size    int64    `json:"size"`    // bytes
	Modules []string `json:"modules"` // in load order
}

// Disk is a file system image.
type Disk struct {
	FSType    string `json:"fstype"`
	UUID      string `json:"uuid"`
	Size      int64  `json:"size"`      // bytes, virtual
	Allocated int64  `json:"allocated"` // bytes on the disk when it was made
}

// Seed is what VMs' work disks begin with.
type Seed struct {
	Disk
	Fingerprint *Fingerprint `json:"fingerprint,omitempty"` // nil until one was taken
}

// Fingerprint tells a file from what may have become of it.
type Fingerprint struct {
	SHA256  string `json:"sha256"`
	vm.File        // when it had this digest: while it is that, nothing need be read
}

// Service is one that a booted guest offers and readiness waits for.
type Service struct {
	Name string `json:"name"`
	Port int    `json:"port"` // TCP
}

// Package is an installed package.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch,omitempty"`
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?(:[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?)?$`)

// CheckName reports why an image cannot have this name, or nil.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fault.New(fault.Invalid, "it is not a valid image name").WithOp("name image", name).
			WithHint("use lower-case letters, digits, '.', '_' and '-', with an optional tag, such as debian:12")
	}
	return nil
}

// Select finds the image that selector names: an exact name, an exact id, or a unique id prefix.
func Select(candidates []Manifest, selector string) (Manifest, error) {
	var byPrefix []Manifest
	for _, m := range candidates {
		if m.Name == selector || m.ID == selector {
			return m, nil
		}
		if selector != "" && strings.HasPrefix(m.ID, selector) {
			byPrefix = append(byPrefix, m)
		}
	}
	switch len(byPrefix) {
	case 1:
		return byPrefix[0], nil
	case 0:
		err := fault.New(fault.NotFound, "no image has this name or id").WithOp("find image", selector)
		if strings.Contains(selector, ":") { // a distribution and its version, as those that can be pulled are named
			return Manifest{}, err.WithHint("run `banger image list`, or fetch it with `banger image pull %s`", selector)
		}
		return Manifest{}, err.WithHint("run `banger image list`; `banger image pull debian:12` gets Debian, `banger image import` any other root")
	default:
		var names []string
		for _, m := range byPrefix {
			names = append(names, m.Name+" ("+m.ID+")")
		}
		return Manifest{}, fault.New(fault.Ambiguous, "it matches %d images: %s", len(byPrefix), strings.Join(names, ", ")).
			WithOp("find image", selector).WithHint("give more digits of the id, or the name")
	}
}
