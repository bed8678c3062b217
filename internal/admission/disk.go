package admission

import (
	"fmt"
	"time"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Disk judges the disk. now is what this verb writes to it at once, growth what all VMs' disks may yet take
// beyond what they have. What cannot be written without passing the low-water mark is refused; what may pass
// it one day is worth a warning.
func (r Rules) Disk(s Space, now, growth int64) (warning string, err error) {
	mark := r.Mark(s.Size)
	room := s.Free - mark
	switch {
	case room < 0:
		return "", fault.New(fault.Exhausted, "the disk is below its low-water mark: %s are free, the mark is at %s",
			vm.FormatSize(s.Free), vm.FormatSize(mark)).WithHint(freeSome)
	case now > room:
		return "", fault.New(fault.Exhausted, "its disks take %s at once, and %s are left above the low-water mark of %s",
			vm.FormatSize(now), vm.FormatSize(room), vm.FormatSize(mark)).WithHint(freeSome)
	case growth > room:
		return fmt.Sprintf("if all VMs filled their disks, these would take %s more; %s are left above the low-water mark, where VMs are paused",
			vm.FormatSize(growth), vm.FormatSize(room)), nil
	}
	return "", nil
}

const freeSome = "free some space: delete VMs or images that are not needed, or set a lower admission.low_water; the trash is emptied by itself"

// Mark is the low-water mark, in bytes: what must stay free on a file system of this size. Where none is
// configured it is 5 GiB, and on a small file system a twentieth of it.
func (r Rules) Mark(size int64) int64 {
	if r.LowWater > 0 {
		return r.LowWater
	}
	return min(5*vm.GiB, size/20)
}

// Level is how a disk stands to its low-water mark.
type Level string

// The levels.
const (
	Enough Level = "enough"
	Scarce Level = "scarce" // what can be spared goes; nothing is paused for it, and what is paused stays so
	Low    Level = "low"    // below the mark: guests must not write
)

// Level judges the free space. Between the mark and a quarter above it is Scarce, so that guests that
// were paused at the mark are not let go into a disk that is full again a moment later.
func (r Rules) Level(s Space) Level {
	switch mark := r.Mark(s.Size); {
	case s.Free < mark:
		return Low
	case s.Free < mark+mark/4:
		return Scarce
	}
	return Enough
}

// Full says why guests are paused and what to do, for the reason of their state.
func (r Rules) Full(s Space) string {
	return fmt.Sprintf("the host's disk is nearly full: %s are free, less than the low-water mark of %s; it runs on by itself when there is space again: delete VMs or images that are not needed",
		vm.FormatSize(s.Free), vm.FormatSize(r.Mark(s.Size)))
}

// fastest is as much as a disk takes in a second, with room to spare: a good one of these years takes half.
const fastest = 16 * vm.GiB

// Look is how long one may look away from a disk with this much free space: a second, or less time than
// anybody could fill what is left in.
func Look(s Space) time.Duration {
	left := time.Duration(float64(s.Free) / float64(fastest) * float64(time.Second))
	return min(max(left, 20*time.Millisecond), time.Second)
}
