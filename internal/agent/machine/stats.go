package machine

import (
	"strconv"
	"strings"
	"time"

	"banger/internal/agentproto"
)

// Stats tells what the guest uses. What cannot be read stays zero.
func (m *Machine) Stats() agentproto.Stats {
	mem := fields("/proc/meminfo", ":")
	return agentproto.Stats{
		CPU:      busy(fields("/proc/stat", " ")["cpu"]),
		MemTotal: kilobytes(mem["MemTotal"]),
		MemAvail: kilobytes(mem["MemAvailable"]),
	}
}

// tick is the unit of times in /proc/stat: USER_HZ, which is 100 on all architectures that we know.
const tick = 10 * time.Millisecond

// busy sums what the vCPUs did: all columns of the first line of /proc/stat but idle, iowait and steal, in which they
// stood still, and guest, which counts as user already (Documentation/filesystems/proc.rst of the kernel).
func busy(columns string) time.Duration {
	const idle, iowait, steal, guest = 3, 4, 7, 8
	var sum time.Duration
	for i, text := range strings.Fields(columns) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || i >= guest {
			break
		}
		if i != idle && i != iowait && i != steal {
			sum += time.Duration(n) * tick
		}
	}
	return sum
}
