package vm_test

import (
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/vm"
)

func TestParseRestart(t *testing.T) {
	for text, want := range map[string]vm.Restart{"": vm.RestartNo, "no": vm.RestartNo, "always": vm.RestartAlways} {
		if got, err := vm.ParseRestart(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	for _, word := range vm.Restarts() {
		if got, err := vm.ParseRestart(word); err != nil || got.String() != word {
			t.Errorf("%q: got %q, %v", word, got, err)
		}
	}
	_, err := vm.ParseRestart("on-failure")
	if want := `read restart policy: "on-failure" is no restart policy`; err == nil || err.Error() != want || !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestDue(t *testing.T) {
	for _, c := range []struct {
		restart vm.Restart
		desired vm.State
		state   vm.State
		want    bool
	}{
		{vm.RestartAlways, vm.Running, vm.Stopped, true},
		{vm.RestartAlways, vm.Running, vm.Crashed, true},
		{vm.RestartAlways, vm.Stopped, vm.Stopped, false},
		{vm.RestartAlways, vm.Running, vm.Running, false},
		{vm.RestartAlways, vm.Running, vm.Starting, false},
		{vm.RestartNo, vm.Running, vm.Crashed, false},
	} {
		v := vm.VM{Restart: c.restart, Desired: c.desired, State: c.state}
		if v.Due() != c.want {
			t.Errorf("%+v: got %v", c, v.Due())
		}
	}
}

func TestRestartPause(t *testing.T) {
	for tries, want := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 9: 5 * time.Minute, 1 << 40: 5 * time.Minute} {
		if got := vm.RestartPause(time.Second, tries); got != want {
			t.Errorf("after %d tries: got %s, want %s", tries, got, want)
		}
	}
}
