package vm_test

import (
	"strings"
	"testing"

	"banger/internal/vm"
)

func TestCrash(t *testing.T) {
	const reason = "the hypervisor ended without a farewell from the guest"
	const info = "2026-05-04T12:00:00.1 [x:main:INFO] Running Firecracker v1.12.1\n"
	for name, c := range map[string]struct{ console, firecracker, want string }{
		"nothing": {"", "", reason},
		"a panic, and its trace": {
			"[    1.0] hello\n[    9.876543] Kernel panic - not syncing: Attempted to kill init!\n[    9.9] Call Trace:", info + "2026-05-04T12:00:00.2 [x:main:ERROR] no",
			reason + ": Kernel panic - not syncing: Attempted to kill init!",
		},
		"an error of Firecracker": {"hello", info + "2026-05-04T12:00:00.2 [x:fc_vcpu 0:ERROR] Unexpected exit reason\n" + info, reason + "; Firecracker said: 2026-05-04T12:00:00.2 [x:fc_vcpu 0:ERROR] Unexpected exit reason"},
		"a last line":             {"one\n[    2.0] two", info, reason + "; the guest's last line: two"},
		"a long one":              {strings.Repeat("é", 200), info, reason + "; the guest's last line: " + strings.Repeat("é", 80) + " …"},
	} {
		if got := vm.Crash(reason, c.console, c.firecracker); got != c.want {
			t.Errorf("%s: got  %q\nwant %q", name, got, c.want)
		}
	}
}
