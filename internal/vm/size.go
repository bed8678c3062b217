package vm

import (
	"strconv"
	"strings"

	"banger/internal/fault"
)

// Binary units, in bytes.
const (
	KiB int64 = 1 << 10
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
	TiB int64 = 1 << 40
)

// ParseSize reads a size such as "512M", "2G" or "1.5GiB" into bytes. A bare number is bytes only
// with the suffix B, so that "--memory 512" cannot silently mean half a kilobyte: it is refused.
func ParseSize(s string) (int64, error) {
	refuse := func(msg string) (int64, error) {
		return 0, fault.New(fault.Invalid, "%s", msg).WithOp("read size", s).WithHint("write a number with a unit, such as 512M or 20G")
	}
	t := strings.TrimSpace(s)
	i := strings.IndexFunc(t, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		return refuse("it has no unit")
	}
	var unit int64
	switch strings.ToUpper(strings.TrimSpace(t[i:])) {
	case "B":
		unit = 1
	case "K", "KB", "KIB":
		unit = KiB
	case "M", "MB", "MIB":
		unit = MiB
	case "G", "GB", "GIB":
		unit = GiB
	case "T", "TB", "TIB":
		unit = TiB
	default:
		return refuse("the unit is unknown")
	}
	n, err := strconv.ParseFloat(t[:i], 64)
	if err != nil {
		return refuse("it is not a number")
	}
	if n*float64(unit) < 1 {
		return refuse("it is nothing")
	}
	if n*float64(unit) > float64(1<<50) {
		return refuse("it is absurdly large")
	}
	return int64(n * float64(unit)), nil
}

// FormatSize renders bytes for people with at most one decimal: "512 MiB", "1.5 GiB".
func FormatSize(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{TiB, "TiB"}, {GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}} {
		if n >= u.size {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(u.size), 'f', 1, 64), ".0") + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " B"
}

// Bounds of a spec. Firecracker takes 1 to 32 vCPUs; below 64 MiB a stock kernel and its initrd do
// not fit.
const (
	MaxVCPU     = 32
	MinMemory   = 64 * MiB
	MaxMemory   = 1 * TiB
	MinWorkDisk = 16 * MiB
	MaxDisk     = 16 * TiB
)

// Check reports what is wrong with a spec. rootMin and workMin are the sizes in bytes of the image's
// root file system and work seed: a disk cannot be smaller than what it is cloned from.
func (s Spec) Check(rootMin, workMin int64) error {
	bad := func(field, format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, format, args...).WithOp("size VM's", field)
	}
	switch {
	case s.VCPU < 1 || s.VCPU > MaxVCPU:
		return bad("vcpu", "%d is out of range", s.VCPU).WithHint("choose 1 to %d", MaxVCPU)
	case s.Memory < MinMemory || s.Memory > MaxMemory:
		return bad("memory", "%s is out of range", FormatSize(s.Memory)).WithHint("choose %s to %s", FormatSize(MinMemory), FormatSize(MaxMemory))
	case s.Memory%MiB != 0:
		return bad("memory", "it is not a whole number of MiB").WithHint("such as 512M")
	case s.RootDisk < rootMin:
		return bad("root-disk", "%s is smaller than its image's root file system, %s", FormatSize(s.RootDisk), FormatSize(rootMin)).
			WithHint("choose at least %s, or leave it out", FormatSize(rootMin))
	case s.RootDisk > MaxDisk:
		return bad("root-disk", "%s is out of range", FormatSize(s.RootDisk)).WithHint("choose at most %s", FormatSize(MaxDisk))
	case s.WorkDisk < workMin:
		return bad("work-disk", "%s is smaller than its image's work seed, %s", FormatSize(s.WorkDisk), FormatSize(workMin)).
			WithHint("choose at least %s, or leave it out", FormatSize(workMin))
	case s.WorkDisk < MinWorkDisk || s.WorkDisk > MaxDisk:
		return bad("work-disk", "%s is out of range", FormatSize(s.WorkDisk)).WithHint("choose %s to %s", FormatSize(MinWorkDisk), FormatSize(MaxDisk))
	case s.RootDisk%(4*KiB) != 0 || s.WorkDisk%(4*KiB) != 0:
		return bad("disks", "a size is not a multiple of 4 KiB").WithHint("such as 8G")
	}
	return nil
}
