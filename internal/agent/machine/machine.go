// Package machine is the Linux guest as its resident agent sees it.
package machine

import (
	"bufio"
	"cmp"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
	"banger/internal/procnet"
)

// RootDevice is the disk that the guest's root is on.
const RootDevice = "/dev/vda"

// Machine implements agent.Machine.
type Machine struct {
	Clock
	Version string // of the agent
	Log     *slog.Logger

	starting sync.Mutex // held while this process has no shield, see StartSession
}

// Uptime is the time since the kernel started.
func (m *Machine) Uptime() time.Duration { return Uptime() }

// Uptime is the time since the kernel started.
func Uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// BootID identifies this run of the kernel.
func BootID() string { return line("/proc/sys/kernel/random/boot_id") }

// Listening returns the TCP ports on which some process listens.
func (m *Machine) Listening() (map[int]bool, error) { return procnet.Ports("/proc/net") }

// Listeners tells who listens on which TCP ports, the lowest first.
func (m *Machine) Listeners() (agentproto.Listeners, error) {
	sockets, err := procnet.Listening("/proc/net")
	if err != nil {
		return agentproto.Listeners{}, err
	}
	slices.SortStableFunc(sockets, func(a, b procnet.Socket) int {
		return cmp.Or(cmp.Compare(a.Address.Port(), b.Address.Port()), a.Address.Compare(b.Address))
	})
	var l agentproto.Listeners
	if more := len(sockets) - agentproto.MaxListeners; more > 0 {
		l.More, sockets = more, sockets[:agentproto.MaxListeners]
	}
	holders := procnet.Holders("/proc", sockets)
	for _, s := range sockets {
		p := holders[s.Inode]
		l.All = append(l.All, agentproto.Socket{Address: s.Address.String(), PID: p.PID, Program: p.Name})
	}
	return l, nil
}

// Clock is the kernel's wall clock.
type Clock struct{}

// Now is the wall clock.
func (Clock) Now() time.Time { return time.Now() }

// SetClock steps the wall clock.
func (Clock) SetClock(now time.Time) error {
	ts := unix.NsecToTimespec(now.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// Info describes the guest. What cannot be read stays empty.
func (m *Machine) Info() agentproto.Info {
	exe, _ := os.Readlink("/proc/1/exe")
	mem := fields("/proc/meminfo", ":")
	return agentproto.Info{
		Agent:    m.Version,
		Version:  agentproto.MaxVersion,
		Kernel:   line("/proc/sys/kernel/osrelease"),
		OS:       strings.Trim(fields("/etc/os-release", "=")["PRETTY_NAME"], `"'`),
		Init:     exe,
		Hostname: line("/proc/sys/kernel/hostname"),
		BootID:   BootID(),
		Uptime:   Uptime(),
		MemTotal: kilobytes(mem["MemTotal"]),
		MemAvail: kilobytes(mem["MemAvailable"]),
		AgentRSS: resident(os.Getpid()) + resident(supervisor()),
	}
}

// supervisor is the pid of our parent when that is the supervisor, not the init that inherited us.
func supervisor() int {
	pid := os.Getppid()
	mine, err := os.Readlink("/proc/self/exe")
	theirs, perr := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil || perr != nil || mine != theirs {
		return 0
	}
	return pid
}

func resident(pid int) int64 {
	return kilobytes(fields("/proc/"+strconv.Itoa(pid)+"/status", ":")["VmRSS"])
}

// kilobytes reads a value such as "1024 kB" and returns bytes.
func kilobytes(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(s, "kB")), 10, 64)
	return n << 10
}

// fields reads the lines of a file as keys and values.
func fields(name, separator string) map[string]string {
	m := make(map[string]string)
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return m
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for n := 0; n < 200 && sc.Scan(); n++ {
		if k, v, ok := strings.Cut(sc.Text(), separator); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m
}

// line is a small file without its newline.
func line(name string) string {
	b, _ := os.ReadFile(filepath.Clean(name))
	return strings.TrimSpace(string(b))
}
