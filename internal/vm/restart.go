package vm

import (
	"time"

	"banger/internal/fault"
)

// Restart says whether the daemon starts a VM that is down though nobody stopped it.
type Restart string

// The policies.
const (
	RestartNo     Restart = ""       // it stays down
	RestartAlways Restart = "always" // it is started again: after a crash, a power-off from inside, a reboot of the host
)

// Restarts lists the policies as users write them.
func Restarts() []string { return []string{"no", "always"} }

// ParseRestart reads a policy as users write it. Anything but a policy is fault.Invalid.
func ParseRestart(s string) (Restart, error) {
	switch s {
	case "", "no":
		return RestartNo, nil
	case string(RestartAlways):
		return RestartAlways, nil
	}
	return "", fault.New(fault.Invalid, "%q is no restart policy", s).WithOp("read restart policy", "").
		WithHint("`always` starts the VM again whenever it is down until you stop it; `no` leaves it down")
}

// String is the policy as users write it.
func (r Restart) String() string {
	if r == RestartNo {
		return "no"
	}
	return string(r)
}

// Due reports whether the VM is to be started by its restart policy: it is down, and whoever last said something about
// it wanted it up.
func (v VM) Due() bool {
	return v.Restart == RestartAlways && v.Desired == Running && (v.State == Stopped || v.State == Crashed)
}

// maxRestartPause is the longest that a VM is left down which is due.
const maxRestartPause = 5 * time.Minute

// RestartPause is how long a VM is left down that was tried so many times without running for a while: first, and twice
// as long after each.
func RestartPause(first time.Duration, tries int) time.Duration {
	pause := first
	for ; tries > 0 && pause < maxRestartPause; tries-- {
		pause *= 2
	}
	return min(pause, maxRestartPause)
}
