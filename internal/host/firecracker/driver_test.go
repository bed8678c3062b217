package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"banger/internal/fault"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

// TestMain lets the test's own binary stand in for Firecracker: it takes its command line, reads its
// configuration if it is given one, and behaves as the kernel's or the snapshot's name says.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "--version":
		fmt.Fprintln(os.Stdout, "Firecracker v1.12.1\n\n2026-01-01T00:00:00.0 [anonymous-instance:main] Firecracker exiting successfully. exit_code=0")
	case os.Args[0] == "firecracker":
		if err := standIn(os.Args); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	default:
		goleak.VerifyTestMain(m)
	}
}

func standIn(args []string) error {
	id := args[2]
	var c config
	if slices.Contains(args, "--config-file") {
		text, err := os.ReadFile(fileConfig)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &c); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(fileLog, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "2026-01-01T00:00:00.0 [%s:main:INFO] Running Firecracker v1.12.1\n", id)
	switch c.BootSource.KernelImagePath {
	case "broken":
		fmt.Fprintf(log, "2026-01-01T00:00:00.0 [%s:main:ERROR] RunWithApiError error: Failed to build MicroVM from Json: Configuration for VMM from one single json failed: Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)\n", id)
		fmt.Fprintf(log, "2026-01-01T00:00:00.0 [%s:main:ERROR] Firecracker exiting with error. exit_code=1\n", id)
		return errors.New("Error: RunWithApi(…)")
	case "mute":
		select {}
	}
	runtime.LockOSThread() // a vCPU, once it has its name
	if c.BootSource.KernelImagePath != "" {
		fmt.Fprintln(os.Stdout, "[    0.000000] Linux version 6.1.0")
		fmt.Fprintln(os.Stdout, "\x1b[32mhello\x1b[0m")
		if err := os.WriteFile("/proc/thread-self/comm", []byte("fc_vcpu 0"), 0); err != nil {
			return err
		}
	}
	l, err := net.Listen("unix", vm.FileAPISocket)
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "2026-01-01T00:00:00.0 [%s:main:INFO] Listening on API socket\n", id)
	var server http.Server
	state := running
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + r.URL.Path {
		case "GET/":
			fmt.Fprintf(w, `{"id":%q,"state":%q,"vmm_version":"1.12.1","app_name":"Firecracker"}`, id, state)
		case "PATCH/vm":
			var to vmUpdate
			if err := json.NewDecoder(r.Body).Decode(&to); err != nil || c.BootSource.KernelImagePath == "restless" {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, `{"fault_message":"Not now."}`)
				return
			}
			state = map[vmState]instanceState{statePaused: paused, stateResumed: running}[to.State]
			w.WriteHeader(http.StatusNoContent)
		case "PUT/snapshot/create":
			snapshot(w, r, state)
		case "PUT/snapshot/load":
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(os.Stdout, "%s %s\n", r.URL.Path, body)
			var from snapshotLoad
			_ = json.Unmarshal(body, &from)
			switch filepath.Base(from.SnapshotPath) {
			case "older":
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, `{"fault_message":"Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: Failed to load snapshot state from file: Invalid data version: 5.0.0"}`)
			case "deadly":
				fmt.Fprintf(log, "2026-01-01T00:00:00.0 [%s:main:ERROR] RunWithApiError error: Failed to build MicroVM: Loading snapshot failed..\n", id)
				_ = server.Close()
			case "mute":
				select {}
			default:
				w.WriteHeader(http.StatusNoContent)
			}
		case "PATCH/balloon", "PATCH/drives/root":
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(os.Stdout, "%s %s\n", r.URL.Path, body)
			w.WriteHeader(http.StatusNoContent)
		case "PATCH/drives/work":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"fault_message":"Invalid block device ID!"}`)
		default: // anything else ends the guest, with last words
			fmt.Fprint(os.Stdout, "reboot: Restarting system")
			_ = server.Close()
		}
	})
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// snapshot answers a request for one.
func snapshot(w http.ResponseWriter, r *http.Request, state instanceState) {
	var to snapshotCreate
	reason := ""
	switch err := json.NewDecoder(r.Body).Decode(&to); {
	case err != nil:
		reason = err.Error()
	case state != paused:
		reason = "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running"
	case filepath.Base(to.MemFilePath) == "large":
		reason = "Create snapshot error: Cannot write memory file: No space left on device (os error 28)"
	default:
		err := errors.Join(os.WriteFile(to.SnapshotPath, []byte("state"), 0o666), os.WriteFile(to.MemFilePath, []byte("memory"), 0o666))
		if err != nil {
			reason = err.Error()
		}
	}
	if reason == "" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"fault_message":%q}`, reason)
}

// host is a driver and one machine, in a directory too deep for a socket's address.
type host struct {
	layout  vm.Layout
	groups  *proc.Groups
	machine vm.Machine
	console chan string
}

func newHost(t *testing.T) *host {
	t.Helper()
	tag := vm.Tag(fmt.Sprintf("%04x", os.Getpid()&0xffff))
	groups, err := proc.OpenGroups(tag)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{layout: vm.Layout{State: filepath.Join(t.TempDir(), strings.Repeat("deep", 30))}, groups: groups, console: make(chan string, 100)}
	id := vm.NewID()
	h.machine = vm.Machine{
		ID: id, Dir: h.layout.Jail(id), VCPU: 1, Memory: 128 * mib, Kernel: "vmlinux", Initrd: "initrd", CID: 3,
		Drives: []vm.Drive{{ID: "root", Path: "root.ext4", Root: true}},
		NICs:   []vm.NIC{{ID: "eth0", TAP: "tap", MAC: "02:00:00:00:00:01"}},
	}
	if err := os.MkdirAll(h.machine.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := groups.Remove(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	return h
}

// daemon returns a driver as a daemon's life has it.
func (h *host) daemon(t *testing.T) *Driver {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := New(binary, h.layout, h.groups, slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(d.Close)
	return d
}

func (h *host) line(l string) { h.console <- l }

func (h *host) awaitLine(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case l := <-h.console:
			if l == want {
				return
			}
		case <-deadline:
			t.Fatalf("the console never said %q", want)
		}
	}
}

func TestAVMOutlivesItsDaemon(t *testing.T) {
	h := newHost(t)
	first := h.daemon(t)
	p, err := first.Start(t.Context(), h.machine, h.line)
	if err != nil {
		t.Fatal(err)
	}
	h.awaitLine(t, "hello")
	waiting := make(chan error, 1)
	go func() { waiting <- first.Wait(context.Background(), p) }()
	first.Close()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting ended with %v though the VM runs", err)
	}
	if err := first.Wait(t.Context(), p); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with a daemon that is gone ended with %v", err)
	}
	if !first.Alive(p) {
		t.Fatal("the VM ended with its daemon")
	}

	second := h.daemon(t)
	if paused, err := second.Attach(t.Context(), h.machine.ID, p, h.line); err != nil || paused {
		t.Fatal(paused, err)
	}
	if _, err := second.CPUTime(p); err != nil {
		t.Error(err)
	}
	go func() { // the guest reboots
		conn, err := dialUnix(context.Background(), filepath.Join(h.machine.Dir, vm.FileAPISocket))
		if err == nil {
			fmt.Fprint(conn, "GET /end HTTP/1.0\r\n\r\n")
			_ = conn.Close()
		}
	}()
	if err := second.Wait(t.Context(), p); err != nil {
		t.Error(err)
	}
	close(h.console) // nothing is said after Wait
	last := ""
	for l := range h.console {
		last = l
	}
	if last != "reboot: Restarting system" {
		t.Errorf("last words: %q", last)
	}
	if err := second.Kill(t.Context(), p); err != nil {
		t.Errorf("killing what is gone: %v", err)
	}
	_, err = second.Attach(t.Context(), h.machine.ID, p, h.line)
	if want := fmt.Sprintf("take back VM %q: the process is gone", h.machine.ID); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestAPausedVMOutlivesItsDaemon(t *testing.T) {
	h := newHost(t)
	first := h.daemon(t)
	p, err := first.Start(t.Context(), h.machine, h.line)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := first.Pause(t.Context(), h.machine.ID); err != nil {
			t.Fatal(err)
		}
	}
	first.Close()
	second := h.daemon(t)
	if paused, err := second.Attach(t.Context(), h.machine.ID, p, h.line); err != nil || !paused {
		t.Fatal(paused, err)
	}
	if err := second.Resume(t.Context(), h.machine.ID); err != nil {
		t.Fatal(err)
	}
	second.Close()
	if paused, err := h.daemon(t).Attach(t.Context(), h.machine.ID, p, h.line); err != nil || paused {
		t.Fatal(paused, err)
	}
}

func TestPauseRefused(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	h.machine.Kernel = "restless"
	if _, err := d.Start(t.Context(), h.machine, h.line); err != nil {
		t.Fatal(err)
	}
	err := d.Pause(t.Context(), h.machine.ID)
	want := fmt.Sprintf("change state of VM %q: Firecracker does not take the state \"Paused\": status 400 Bad Request: Not now.", h.machine.ID)
	if err == nil || err.Error() != want || fault.From(err).Hint == "" {
		t.Errorf("got %v", err)
	}
}

func TestKill(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	p, err := d.Start(t.Context(), h.machine, h.line)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Kill(t.Context(), p); err != nil {
		t.Error(err)
	}
	if d.Alive(p) {
		t.Error("it lives")
	}
	if _, err := d.CPUTime(p); !errors.Is(err, proc.ErrGone) {
		t.Errorf("got %v", err)
	}
	record := vm.Record{VM: h.machine.ID, Kind: vm.RecordProcess}
	for range 2 {
		if err := d.Release(t.Context(), record); err != nil {
			t.Error(err)
		}
	}
}

func TestStartRefused(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	h.machine.Kernel = "broken"
	_, err := d.Start(t.Context(), h.machine, h.line)
	f := fault.From(err)
	want := fmt.Sprintf("start hypervisor of VM %q: Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)", h.machine.ID)
	if f == nil || f.Error() != want || f.Code != fault.Incompatible || !strings.Contains(f.Hint, "kernel cannot boot") {
		t.Fatalf("got %v: %v", fault.CodeOf(err), err)
	}
	if d := cmp.Diff([]string{h.layout.FirecrackerLog(h.machine.ID), h.layout.ConsoleLog(h.machine.ID)}, f.Logs); d != "" {
		t.Error(d)
	}
	if lines := strings.Split(f.Detail, "\n"); len(lines) != 3 {
		t.Errorf("detail: %q", f.Detail)
	}
	if pids, err := h.groups.Members(h.machine.ID); err != nil || len(pids) != 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
	h.machine.Kernel = "vmlinux"
	if _, err := d.Start(t.Context(), h.machine, h.line); err != nil {
		t.Errorf("a start after a refusal: %v", err)
	}
}

func TestStartThatNeverAnswers(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	h.machine.Kernel = "mute"
	if _, err := d.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := d.Start(ctx, h.machine, h.line)
	if !fault.Is(err, fault.Timeout) || !strings.Contains(err.Error(), "Firecracker does not say that the guest runs") {
		t.Errorf("got %v", err)
	}
	if pids, err := h.groups.Members(h.machine.ID); err != nil || len(pids) != 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
}

func TestOneDiskIsNeverRunTwice(t *testing.T) {
	h := newHost(t)
	d := h.daemon(t)
	p, err := d.Start(t.Context(), h.machine, h.line)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Start(t.Context(), h.machine, h.line)
	if want := fmt.Sprintf("start hypervisor of VM %q: a hypervisor of this VM still runs as process [%d]", h.machine.ID, p.PID); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if !d.Alive(p) {
		t.Error("the first was ended")
	}
}

func TestConfiguration(t *testing.T) {
	text, err := configure(newHost(t).machine)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	for text, into := range map[string]any{string(text): &got, `{
		"boot-source": {"kernel_image_path": "vmlinux", "initrd_path": "initrd", "boot_args": ""},
		"machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
		"drives": [{"drive_id": "root", "path_on_host": "root.ext4", "is_root_device": true, "is_read_only": false, "cache_type": "Writeback", "io_engine": "Sync"}],
		"network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap", "guest_mac": "02:00:00:00:00:01"}],
		"vsock": {"guest_cid": 3, "uds_path": "v.sock"},
		"entropy": {},
		"balloon": {"amount_mib": 0, "deflate_on_oom": true}
	}`: &want} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
