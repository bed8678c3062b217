package vm

import "strings"

// RootBackend says how a VM's root overlay is kept. It is chosen when the VM is made, and stays.
type RootBackend string

// The backends. A VM of before there was a choice has none: it has a file of its own, as with the first two.
const (
	RootReflink  RootBackend = "reflink"     // a file that shares its blocks with the image until they are written
	RootCopy     RootBackend = "copy"        // a file that has blocks of its own
	RootSnapshot RootBackend = "dm-snapshot" // a device over the image, and a file of what was written
)

// Overlay is a root overlay that is a device of its own. Paths are absolute.
type Overlay struct {
	Device string // device-mapper's name of it
	Origin string // the image's file, which is only read
	Cow    string // file that takes what is written
	Node   string // where the hypervisor finds the device
	Size   int64  // bytes, as the guest sees it: the image, and zeroes behind it
}

// RootDevice is device-mapper's name of the VM's root overlay.
func (id ID) RootDevice(tag Tag) string { return tag.rootDevice() + string(id) }

// RootDeviceOf tells whose root overlay a device is, by its name; false where it is none of this instance.
func (t Tag) RootDeviceOf(name string) (ID, bool) {
	id, ok := strings.CutPrefix(name, t.rootDevice())
	return ID(id), ok && t.Valid() && ID(id).Valid()
}

func (t Tag) rootDevice() string { return "banger-" + string(t) + "-" }
