package firecracker

import (
	"errors"
	"fmt"
	"testing"

	"banger/internal/fault"
	"banger/internal/vm"
)

func TestAMachineIsChangedWhileItRuns(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	if _, err := d.Start(t.Context(), h.machine, h.line); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		d.Balloon(t.Context(), h.machine.ID, 64*mib+1),
		d.Redrive(t.Context(), h.machine.ID, h.machine.Drives[0]),
	); err != nil {
		t.Fatal(err)
	}
	h.awaitLine(t, `/balloon {"amount_mib":64}`)
	h.awaitLine(t, `/drives/root {"drive_id":"root","path_on_host":"root.ext4"}`)
	err := d.Redrive(t.Context(), h.machine.ID, vm.Drive{ID: "work", Path: "work.ext4"})
	want := fmt.Sprintf("change machine of VM %q: Firecracker does not take it: status 400 Bad Request: Invalid block device ID!", h.machine.ID)
	if err == nil || err.Error() != want || fault.From(err).Hint == "" {
		t.Errorf("got %v", err)
	}
}
