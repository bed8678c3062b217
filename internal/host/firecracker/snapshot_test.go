package firecracker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/vm"
)

// snapshotIn names the files of a snapshot.
func snapshotIn(dir string) vm.Snapshot {
	return vm.Snapshot{State: filepath.Join(dir, "state"), Memory: filepath.Join(dir, "memory")}
}

func TestASnapshotIsWritten(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	if _, err := d.Start(t.Context(), h.machine, h.line); err != nil {
		t.Fatal(err)
	}
	id, dir := h.machine.ID, t.TempDir()
	to := snapshotIn(dir)
	refuse := func(to vm.Snapshot, code fault.Code, want string) {
		t.Helper()
		err := d.Snapshot(t.Context(), id, to)
		if !fault.Is(err, code) || !strings.HasPrefix(err.Error(), want) || fault.From(err).Hint == "" || len(fault.From(err).Logs) == 0 {
			t.Errorf("%v: %v", fault.CodeOf(err), err)
		}
		if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	refuse(to, fault.Unavailable, fmt.Sprintf("write snapshot of VM %q: Firecracker does not write it: status 400 Bad Request: Create snapshot error: ", id))
	if err := d.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	refuse(vm.Snapshot{State: to.State, Memory: filepath.Join(dir, "large")}, fault.Exhausted,
		fmt.Sprintf("write snapshot of VM %q: the disk is full: status 400 Bad Request: Create snapshot error: Cannot write memory file: No space left", id))
	refuse(snapshotIn(dir+"/none"), fault.Internal, fmt.Sprintf("write snapshot of VM %q: no such file or directory", dir+"/none/state"))

	for range 2 { // the second finds the first, and leaves it alone
		err := d.Snapshot(t.Context(), id, to)
		for path, want := range map[string]string{to.State: "state", to.Memory: "memory"} {
			if got, rerr := os.ReadFile(path); rerr != nil || string(got) != want {
				t.Errorf("%s: %q, %v (%v)", path, got, rerr, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
		}
		if err != nil && !fault.Is(err, fault.AlreadyExists) {
			t.Error(err)
		}
	}
}

func TestASnapshotIsRestored(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	p, err := d.Restore(t.Context(), h.machine, vm.Snapshot{State: "/golden/state", Memory: "/golden/memory"}, h.line)
	if err != nil {
		t.Fatal(err)
	}
	h.awaitLine(t, `/snapshot/load {"snapshot_path":"/golden/state","mem_backend":{"backend_type":"File","backend_path":"/golden/memory"},`+
		`"network_overrides":[{"iface_id":"eth0","host_dev_name":"tap"}],"resume_vm":true}`)
	if _, err := os.Stat(filepath.Join(h.machine.Dir, fileConfig)); err == nil {
		t.Error("it has a configuration")
	}
	d.Close()
	again := h.daemon(t)
	if paused, err := again.Attach(t.Context(), h.machine.ID, p, h.line); err != nil || paused {
		t.Fatal(paused, err)
	}
	_, err = again.Restore(t.Context(), h.machine, vm.Snapshot{}, h.line)
	if want := fmt.Sprintf("restore VM %q: a hypervisor of this VM still runs as process [%d]", h.machine.ID, p.PID); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if err := again.Kill(t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestRestoreRefused(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	for name, c := range map[string]struct {
		code fault.Code
		want string
	}{
		"older":  {fault.Incompatible, "the snapshot was made by another Firecracker: Invalid data version: 5.0.0"},
		"deadly": {fault.Internal, "Failed to build MicroVM: Loading snapshot failed.."},
	} {
		_, err := d.Restore(t.Context(), h.machine, vm.Snapshot{State: "/golden/" + name}, h.line)
		if want := fmt.Sprintf("restore VM %q: %s", h.machine.ID, c.want); !fault.Is(err, c.code) || err.Error() != want || fault.From(err).Hint == "" || len(fault.From(err).Logs) != 2 {
			t.Errorf("%v: %v", fault.CodeOf(err), err)
		}
		if pids, err := h.groups.Members(h.machine.ID); err != nil || len(pids) != 0 {
			t.Errorf("left: %v, %v", pids, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := d.Restore(ctx, h.machine, vm.Snapshot{State: "/golden/mute"}, h.line)
	if !fault.Is(err, fault.Timeout) {
		t.Errorf("%v: %v", fault.CodeOf(err), err)
	}
	if _, err := d.Restore(t.Context(), h.machine, vm.Snapshot{State: "/golden/state"}, h.line); err != nil {
		t.Errorf("a restore after a refusal: %v", err)
	}
}

// The texts are those of Firecracker 1.12.1.
func TestWhyASnapshotIsNotTaken(t *testing.T) {
	const state = "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: Failed to load snapshot state from file: "
	for _, c := range []struct {
		reason, msg string
		code        fault.Code
	}{
		{state + "Invalid data version: 7.0.0", "the snapshot was made by another Firecracker: Invalid data version: 7.0.0", fault.Incompatible},
		{state + "Magic value does not match arch: 508934814873944163", "the snapshot was made by another Firecracker: Magic value does not match arch: 508934814873944163", fault.Incompatible},
		{
			"Load snapshot error: Failed to restore from snapshot: Failed to build microVM from snapshot: Failed to restore vCPUs: Failed to set all KVM MSRs for this vCPU. Only a partial write was done.",
			"the snapshot was made on another processor: Failed to restore vCPUs: Failed to set all KVM MSRs for this vCPU. Only a partial write was done.", fault.Incompatible,
		},
		{state + "CRC64 validation failed: 1344092460836822183", "the snapshot is damaged: CRC64 validation failed: 1344092460836822183", fault.Corrupt},
		{state + "serialization/deserialization: LimitExceeded", "the snapshot is damaged: serialization/deserialization: LimitExceeded", fault.Corrupt},
		{
			"Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: Error creating guest memory from file: Failed to restore guest memory: Cannot create mmap region: The specified file offset and length is greater then file length",
			"the snapshot is damaged: Failed to load guest memory: Error creating guest memory from file: Failed to restore guest memory: Cannot create mmap region: The specified file offset and length is greater then file length", fault.Corrupt,
		},
		{
			"Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: Error creating guest memory from file: Failed to load guest memory: No such file or directory (os error 2)",
			"Failed to load guest memory: Error creating guest memory from file: Failed to load guest memory: No such file or directory (os error 2)", fault.Internal,
		},
		{"Load snapshot error: Cannot allocate memory (os error 12)", "Cannot allocate memory (os error 12)", fault.Exhausted},
		{"", "Firecracker does not take the snapshot: status 400", fault.Internal},
	} {
		if f := unrestorable(errRefused{"400", c.reason}); f.Msg != c.msg || f.Code != c.code {
			t.Errorf("%s: %s", f.Code, f.Msg)
		}
	}
}
