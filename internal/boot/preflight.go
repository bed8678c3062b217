package boot

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"banger/internal/fault"
)

// need is a kernel option that banger's guests rely on. Any of the alternatives will do.
type need struct {
	options []string // without CONFIG_
	breaks  string
	module  string // satisfied by =m if this module is in the initrd; empty means that it must be built in
	loose   bool   // =m is fine: the root file system has the module
}

// needs lists what each part of a guest's life relies on.
func needs() []need {
	return []need{
		{options: []string{"BLK_DEV_INITRD"}, breaks: "the initrd, so the agent never starts"},
		{options: []string{"BINFMT_ELF"}, breaks: "every program"},
		{options: []string{"SERIAL_8250_CONSOLE"}, breaks: "the console log"},
		{options: []string{"ACPI", "VIRTIO_MMIO_CMDLINE_DEVICES"}, breaks: "finding Firecracker's devices"},
		{options: []string{"VIRTIO_MMIO"}, module: "virtio_mmio", breaks: "every device of Firecracker"},
		{options: []string{"VIRTIO_BLK"}, module: "virtio_blk", breaks: "the root and work disks"},
		{options: []string{"EXT4_FS"}, module: "ext4", breaks: "mounting the root and work disks"},
		{options: []string{"VIRTIO_NET"}, module: "virtio_net", breaks: "the network"},
		{options: []string{"VIRTIO_VSOCKETS"}, module: "vmw_vsock_virtio_transport", breaks: "talking to the agent"},
		{options: []string{"HW_RANDOM_VIRTIO"}, module: "virtio_rng", breaks: "early randomness, so ssh keys and TLS wait"},
		{options: []string{"VIRTIO_BALLOON"}, module: "virtio_balloon", breaks: "giving memory back to the host"},
		{options: []string{"DEVTMPFS"}, breaks: "device nodes before udev"},
		{options: []string{"TMPFS"}, breaks: "/run"},
		{options: []string{"PROC_FS"}, breaks: "/proc"},
		{options: []string{"SYSFS"}, breaks: "/sys"},
		{options: []string{"INET"}, breaks: "the network"},
		{options: []string{"UNIX"}, loose: true, breaks: "systemd, dbus and most daemons"},
		{options: []string{"FUTEX"}, breaks: "threads, so nearly every program"},
		{options: []string{"BINFMT_SCRIPT"}, loose: true, breaks: "every script"},
		{options: []string{"CGROUPS"}, breaks: "systemd and keeping the agent apart"},
		{options: []string{"EPOLL"}, breaks: "the agent and systemd"},
		{options: []string{"SIGNALFD"}, breaks: "systemd"},
		{options: []string{"TIMERFD"}, breaks: "systemd"},
		{options: []string{"INOTIFY_USER"}, breaks: "systemd"},
		{options: []string{"FHANDLE"}, breaks: "systemd"},
	}
}

// Missing is an option that a kernel lacks.
type Missing struct {
	Option string // "CONFIG_VIRTIO_BLK", alternatives joined by " or "
	Breaks string
}

// maxConfig bounds a kernel configuration; Debian's has 300 KiB.
const maxConfig = 4 << 20

// Preflight reads a kernel's configuration, as distributions install in /boot/config-*, and names
// what it lacks. has tells which modules the kernel's tree offers for the initrd.
func Preflight(config io.Reader, has func(module string) bool) ([]Missing, error) {
	set := map[string]string{}
	sc := bufio.NewScanner(io.LimitReader(config, maxConfig))
	for sc.Scan() {
		if option, value, ok := strings.Cut(strings.TrimPrefix(sc.Text(), "CONFIG_"), "="); ok && strings.HasPrefix(sc.Text(), "CONFIG_") {
			set[option] = value
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read kernel configuration: %w", err)
	}
	if len(set) == 0 {
		return nil, fault.New(fault.Invalid, "it has no CONFIG_ lines").WithOp("read kernel configuration", "").
			WithHint("give the kernel's own /boot/config-<version>")
	}
	var missing []Missing
	for _, n := range needs() {
		if !n.met(set, has) {
			missing = append(missing, Missing{Option: "CONFIG_" + strings.Join(n.options, " or CONFIG_"), Breaks: n.breaks})
		}
	}
	return missing, nil
}

func (n need) met(set map[string]string, has func(string) bool) bool {
	for _, o := range n.options {
		switch set[o] {
		case "y":
			return true
		case "m":
			if n.loose || n.module != "" && has(n.module) {
				return true
			}
		}
	}
	return false
}

// CheckPreflight is Preflight as one fault that names everything missing, or nil.
func CheckPreflight(kernel string, config io.Reader, has func(module string) bool) error {
	missing, err := Preflight(config, has)
	if err != nil || len(missing) == 0 {
		return err
	}
	var b strings.Builder
	for _, m := range missing {
		fmt.Fprintf(&b, "%s is missing, which breaks %s\n", m.Option, m.Breaks)
	}
	return fault.New(fault.Incompatible, "it lacks %d options that a guest needs", len(missing)).WithOp("use kernel", kernel).
		WithDetail(strings.TrimSpace(b.String())).WithHint("use a kernel built with these options")
}
