package vm_test

import (
	"testing"

	"banger/internal/vm"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name    string
		ending  vm.Ending
		state   vm.State
		restart bool
		reason  string
	}{
		{"we stopped it", vm.Ending{Asked: vm.Stopped, Farewell: true, Exited: true}, vm.Stopped, false, ""},
		{"we stopped it and it halted", vm.Ending{Asked: vm.Stopped, Halted: true}, vm.Stopped, false, ""},
		{"poweroff inside", vm.Ending{Farewell: true, Halted: true}, vm.Stopped, false, "powered off from inside"},
		{"poweroff -f inside", vm.Ending{LastWords: vm.WordsHalt, Halted: true}, vm.Stopped, false, "powered off from inside"},
		{"reboot inside", vm.Ending{Farewell: true, Exited: true}, vm.Stopped, true, "rebooted from inside"},
		{"reboot -f inside", vm.Ending{LastWords: vm.WordsRestart, Exited: true}, vm.Stopped, true, "rebooted from inside"},
		{"panic", vm.Ending{LastWords: vm.WordsPanic, Exited: true}, vm.Crashed, false, "the guest's kernel panicked"},
		{"panic while we stopped it", vm.Ending{Asked: vm.Stopped, LastWords: vm.WordsPanic, Exited: true}, vm.Crashed, false, "the guest's kernel panicked"},
		{"hypervisor killed", vm.Ending{Exited: true}, vm.Crashed, false, "the hypervisor ended without a farewell from the guest"},
		{"nothing known", vm.Ending{}, vm.Crashed, false, "the guest was lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := vm.Verdict{State: c.state, Restart: c.restart, Reason: c.reason}
			if got := c.ending.Judge(); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestParseWords(t *testing.T) {
	for line, want := range map[string]vm.LastWords{
		"[   12.345678] reboot: Restarting system":                           vm.WordsRestart,
		"[    3.1] reboot: System halted":                                    vm.WordsHalt,
		"[    3.1] reboot: Power off not available: System halted instead":   vm.WordsHalt,
		"reboot: Power down":                                                 vm.WordsHalt,
		"[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs": vm.WordsPanic,
		"root@dev:~# echo reboot: System halted":                             vm.WordsNone,
		"he said: Kernel panic - not syncing":                                vm.WordsNone,
		"":                                                                   vm.WordsNone,
		"[":                                                                  vm.WordsNone,
	} {
		if got := vm.ParseWords(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
