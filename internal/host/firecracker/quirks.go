package firecracker

// Effect says what a quirk means to a user of banger.
type Effect string

// The effects.
const (
	Avoided Effect = "avoided" // banger works around it
	Unused  Effect = "unused"  // it needs something that banger does not do
	Open    Effect = "open"    // it can be met: a newer Firecracker is better
)

// Quirk is something that a Firecracker does other than one would wish.
type Quirk struct {
	What   string    // one line
	Effect Effect    // for banger
	Since  Version   // the first release that has it; zero: all that are supported
	Fixed  []Version // the first release without it on each line of releases, oldest first; empty: none yet
	Source string    // where to read more: a pull request of Firecracker's, as its change log cites it
}

// affects reports whether a release has the quirk.
func (q Quirk) affects(v Version) bool {
	if v.Compare(q.Since) < 0 {
		return false
	}
	for i, f := range q.Fixed {
		last := i == len(q.Fixed)-1
		if v.Compare(f) >= 0 && (last || v.Major == f.Major && v.Minor == f.Minor) {
			return false
		}
	}
	return true
}

// Quirks lists what is known of a release. This is the one place that knows; it was checked against
// Firecracker's change log and, where that is silent, against its source.
func Quirks(v Version) []Quirk {
	var found []Quirk
	for _, q := range []Quirk{
		{
			What:   "a guest's poweroff on x86 leaves Firecracker running with silent vCPUs",
			Effect: Avoided,
		}, {
			What:   "console output is dropped while its pipe is full and nobody reads",
			Effect: Avoided,
		}, {
			What:   "a TAP that does not exist is silently created, on no bridge",
			Effect: Avoided,
		}, {
			What:   "asked while it refuses a machine, it panics and does not tell the reason",
			Effect: Avoided,
		}, {
			What:   "a FIFO for the log cannot be opened unless someone reads it",
			Effect: Avoided, Since: Version{1, 14, 0}, Fixed: []Version{{1, 14, 2}}, Source: "#5698",
		}, {
			What:   "a guest can stall the hypervisor with balloon statistics",
			Effect: Avoided, Fixed: []Version{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}, Source: "#5794",
		}, {
			What:   "vsock data can be corrupted in guests with Linux 6.17 or newer",
			Effect: Open, Fixed: []Version{{1, 14, 0}}, Source: "#5485",
		}, {
			What:   "a guest can make the hypervisor use more memory than was given to the VM, through the entropy device",
			Effect: Open, Fixed: []Version{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}, Source: "#5762",
		}, {
			What:   "the jailer follows links at the place it copies the binary to",
			Effect: Unused, Fixed: []Version{{1, 13, 2}, {1, 14, 1}}, Source: "#5631",
		}, {
			What:   "snapshots are a developer preview",
			Effect: Open, Fixed: []Version{{1, 13, 0}}, Source: "#5165",
		}, {
			What:   "a snapshot writes all of the memory to the disk, also what is zero",
			Effect: Avoided,
		}, {
			What:   "a snapshot ends the guest's connections over vsock, also where it is resumed",
			Effect: Avoided,
		}, {
			What:   "a snapshot's files can be read by anyone, and it writes over what is there",
			Effect: Avoided,
		}, {
			What:   "a snapshot that was made on another processor is restored with no more than a warning",
			Effect: Avoided,
		}, {
			What:   "a snapshot of changes needs all writes to memory watched, from the boot on",
			Effect: Unused, Fixed: []Version{{1, 13, 0}}, Source: "#5274",
		}, {
			What:   "differential snapshots are a developer preview, also where full ones are not",
			Effect: Unused, Source: "#5165",
		}, {
			What:   "differential snapshots of guests over 3 GiB are corrupt",
			Effect: Unused, Since: Version{1, 14, 0}, Fixed: []Version{{1, 14, 2}}, Source: "#5705",
		}, {
			What:   "a restored guest's monotonic clock jumps by the snapshot's age on hosts with Linux 5.16 or newer",
			Effect: Open, Fixed: []Version{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}, Source: "#5809",
		}, {
			What:   "a restored guest's soft-lockup watchdog can fire",
			Effect: Open, Fixed: []Version{{1, 14, 0}}, Source: "#5494",
		}, {
			What:   "a restored guest's serial console can hang if it was writing",
			Effect: Open, Fixed: []Version{{1, 16, 0}}, Source: "#5764",
		}, {
			What:   "a restored guest does not find the same MSRs of KVM's that it had",
			Effect: Open, Fixed: []Version{{1, 16, 0}}, Source: "#5738",
		}, {
			What:   "a restored guest can take the number of a vsock connection again that the host still remembers",
			Effect: Avoided, Fixed: []Version{{1, 15, 0}}, Source: "#5688",
		}, {
			What:   "a restored guest's kernel before 6.10 is not told that its random numbers must be drawn anew",
			Effect: Avoided, Fixed: []Version{{1, 16, 0}}, Source: "#5760",
		}, {
			What:   "a connection to a guest that has just been restored can break",
			Effect: Open, Fixed: []Version{{1, 16, 0}}, Source: "#5882",
		}, {
			What:   "connections from a restored guest can time out after a snapshot under traffic",
			Effect: Open, Fixed: []Version{{1, 16, 1}}, Source: "#5958",
		}, {
			What:   "new connections to a guest hang after a pause and resume without a snapshot",
			Effect: Open, Since: Version{1, 16, 0}, Source: "#6100",
		},
	} {
		if q.affects(v) {
			found = append(found, q)
		}
	}
	return found
}
