package boot

import "strings"

// Args is the kernel's command line for a guest of this architecture (as in GOARCH). Setting one
// replaces Firecracker's own, so it starts from those: the serial console, a reset by the keyboard
// controller (x86's way to end Firecracker), and a panic that does not wait for an operator.
func Args(arch string) string {
	args := []string{"console=ttyS0", "panic=1", "quiet", "loglevel=3"}
	switch arch {
	case "amd64":
		// Without these the probe of an absent keyboard and mouse costs most of a second.
		args = append(args, "reboot=k", "i8042.noaux", "i8042.nomux", "i8042.nopnp", "i8042.dumbkbd")
	case "arm64":
		args = append(args, "keep_bootcon") // resets go through PSCI and need no word here
	}
	// A snapshot's age is added to the guest's monotonic clock at restore on some versions, and the time of a pause is on all.
	// To systemd's watchdogs its services would then have hung, which they abort, and to the kernel its processors, of which it
	// writes pages to the console while somebody waits for the guest.
	return strings.Join(append(args, "systemd.service_watchdogs=no", "rcupdate.rcu_cpu_stall_suppress=1"), " ")
}
