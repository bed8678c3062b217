package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/vm"
)

// TestManyAtOnce holds a verb on many VMs to its bound, and the order of what it says to that of the VMs.
func TestManyAtOnce(t *testing.T) {
	g, err := newGuest()
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(g)
	f.vms = nil
	var want strings.Builder
	for i := range 40 {
		name := fmt.Sprintf("busy-%02d", i)
		f.vms = append(f.vms, api.VM{ID: vm.NewID(), Name: name, Owner: os.Geteuid(), State: vm.Running})
		fmt.Fprintln(&want, name)
	}
	socket := filepath.Join(t.TempDir(), "d.sock")
	stop, err := f.serve(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	cmd := exec.CommandContext(t.Context(), "banger", "vm", "stop", "--all")
	cmd.Env = append(os.Environ(), "BANGER_SOCKET="+socket, "TEST_OLD=1", raceExit)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(line, " is stopped ")
		fmt.Fprintln(&got, name)
	}
	if got.String() != want.String() {
		t.Errorf("said %q", out)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most != 16 {
		t.Errorf("%d at once", f.most)
	}
}
