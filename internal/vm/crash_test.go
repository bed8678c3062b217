package vm_test

import (
	"strings"
	"testing"

	"banger/internal/vm"
)

func TestCrash(t *testing.T) {
	const reason = "the hypervisor ended without a farewell from the guest"
	const begins = "2026-05-04T12:00:00.1 [x:main:INFO] Running Firecracker v1.12.1\n"
	const info = "2026-05-04T12:00:00.3 [x:main:INFO] Firecracker exiting\n"
	const fails = "2026-05-04T12:00:00.2 [x:fc_vcpu 0:ERROR] Unexpected exit reason\n"
	const panics = "[    1.0] hello\n[    9.876543] Kernel panic - not syncing: Attempted to kill init!\n[    9.9] Call Trace:"
	for name, c := range map[string]struct {
		panicked                   bool
		console, firecracker, want string
	}{
		"nothing":                 {false, "", "", reason},
		"a panic, and its trace":  {true, panics, begins + fails, reason + ": Kernel panic - not syncing: Attempted to kill init!"},
		"an error of Firecracker": {false, "hello", begins + fails + info, reason + "; Firecracker said: " + strings.TrimSpace(fails)},
		"a last line":             {false, "one\n[    2.0] two", begins, reason + "; the guest's last line: two"},
		"what the agent notes":    {false, "two\n[ 3.0] level=INFO msg=\"the clock was stepped\" program=banger-agent", begins, reason + "; the guest's last line: two"},
		"a long one":              {false, strings.Repeat("é", 200), begins, reason + "; the guest's last line: " + strings.Repeat("é", 80) + " …"},
		// The logs go on from run to run.
		"a panic of an earlier run":  {false, panics + "\nlogin:", begins, reason + "; the guest's last line: login:"},
		"an error of an earlier run": {false, "login:", begins + fails + begins, reason + "; the guest's last line: login:"},
	} {
		if got := vm.Crash(reason, c.panicked, c.console, c.firecracker); got != c.want {
			t.Errorf("%s: got  %q\nwant %q", name, got, c.want)
		}
	}
}
