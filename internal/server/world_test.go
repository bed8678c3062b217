package server_test

import (
	"bytes"
	"context"
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
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/client"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/op"
	"banger/internal/reconcile"
	"banger/internal/server"
	"banger/internal/snapshot"
	"banger/internal/usage"
	"banger/internal/vm"
)

// TestMain waits for every goroutine but one: where a body was left unread net/http holds a closed
// connection for half a second, which goleak's patience is too short for.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// world is a server on a socket over fakes of its ports, and a client of it.
type world struct {
	t       *testing.T
	socket  string
	layout  vm.Layout
	verbs   *verbs
	tracker *op.Tracker
	events  server.Events
	client  *client.Client

	mu       sync.Mutex
	log      bytes.Buffer
	patterns []string // of the routes that were asked
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := draft(t)
	w.events = noEvents{w.verbs}
	w.serve()
	return w
}

// draft is a world that is not served yet.
func draft(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, socket: filepath.Join(t.TempDir(), "s"), layout: vm.Layout{State: t.TempDir()}, tracker: op.NewTracker()}
	w.verbs = &verbs{tracker: w.tracker}
	w.client = client.New(w.socket)
	return w
}

// noEvents is a store in which nothing happens.
type noEvents struct{ verbs *verbs }

func (n noEvents) Events(context.Context, int64, int) (event.Page, error) {
	return event.Page{}, n.verbs.called(vm.Caller{}, "events")
}

func (n noEvents) LastEvent(context.Context) (int64, error) {
	return 0, n.verbs.called(vm.Caller{}, "last event")
}

func (n noEvents) EventBefore(context.Context, time.Time) (int64, error) {
	return 0, n.verbs.called(vm.Caller{}, "event before")
}

func (noEvents) Changed() <-chan struct{} { return nil }

// serve starts a server, and returns what ends it early, as a crash would.
func (w *world) serve() (stop func()) {
	w.t.Helper()
	_, stop = w.start()
	return stop
}

func (w *world) start() (srv *http.Server, stop func()) {
	w.t.Helper()
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	srv = server.New(server.Config{
		Verbs: w.verbs, Operations: operations{w.tracker, w.verbs}, Events: w.events, Daemon: w.verbs, Usage: w.verbs, Network: w.verbs, Layout: w.layout,
		Policy: network.Policy{NAT: true, Egress: network.EgressAll},
		Log:    slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.patterns = append(w.patterns, r.Pattern)
		}()
		next.ServeHTTP(rw, r)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			w.t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() {
		_ = srv.Close()
		<-done
	})
	w.t.Cleanup(stop)
	return srv, stop
}

// Write takes what the server logs.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.patterns)
}

// raw sends bytes as they are and returns a connection to read the answer from.
func (w *world) raw(request string) net.Conn {
	w.t.Helper()
	conn := w.connect()
	if _, err := io.WriteString(conn, request); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

func (w *world) connect() net.Conn {
	w.t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(w.t.Context(), "unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// connectAs connects with another effective uid, which takes root unless it is one's own.
func (w *world) connectAs(uid int) net.Conn {
	w.t.Helper()
	if uid == os.Geteuid() {
		return w.connect()
	}
	conns := make(chan net.Conn)
	go func() {
		// The thread is spoilt for everybody else: never unlocked, it ends with this goroutine.
		runtime.LockOSThread()
		const keep = ^uintptr(0)
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep)
		if errno != 0 {
			w.t.Error("setresuid:", errno)
		}
		// The socket's directory is the test's own.
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
		var d net.Dialer
		conn, err := d.DialContext(w.t.Context(), "unix", w.socket)
		if err != nil {
			w.t.Error(err)
		}
		conns <- conn
	}()
	conn := <-conns
	if conn == nil {
		w.t.FailNow()
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// operations are those of one process.
type operations struct {
	*op.Tracker
	verbs *verbs
}

func (o operations) List(context.Context) ([]op.Operation, error) { return o.Tracker.List(), nil }

func (o operations) Follow(ctx context.Context, id op.ID, each func(op.Operation) error) error {
	return o.Tracker.Follow(ctx, id, func(x op.Operation) error {
		err := each(x)
		if o.verbs.panics {
			panic("on the way")
		}
		return err
	})
}

func (o operations) Get(_ context.Context, id op.ID) (op.Operation, error) {
	if x, ok := o.Tracker.Get(id); ok {
		return x, nil
	}
	return op.Operation{}, fault.New(fault.NotFound, "no such operation").WithOp("find operation", string(id))
}

// verbs notes what it is asked, and answers with what it was told to.
type verbs struct {
	tracker *op.Tracker

	mu        sync.Mutex
	calls     []string
	caller    vm.Caller
	err       error // what every verb fails with
	panics    bool
	dialed    func() (net.Conn, error)
	tree      chan received // what an import got
	interrupt bool          // an import is interrupted as it begins
}

type received struct {
	tar []byte
	err error
}

func (v *verbs) called(caller vm.Caller, format string, args ...any) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls = append(v.calls, fmt.Sprintf(format, args...))
	v.caller = caller
	if v.panics {
		panic("of purpose")
	}
	return v.err
}

func (v *verbs) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

// took returns the calls since it was last asked.
func (v *verbs) took() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	text := strings.Join(v.calls, "\n")
	v.calls = nil
	return text
}

// begin starts an operation that runs until somebody ends it.
func (v *verbs) begin(caller vm.Caller, kind, name string) *op.Job {
	return v.tracker.Begin(op.Operation{ID: op.NewID(), Kind: kind, Name: name, Owner: caller.UID, State: op.Underway, Created: time.Now()}, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.calls = append(v.calls, "cancel "+name)
	})
}

func (v *verbs) began(caller vm.Caller, kind, name string, err error) (op.Operation, error) {
	if err != nil {
		return op.Operation{}, err
	}
	return v.begin(caller, kind, name).Snapshot(), nil
}

func machine() vm.VM {
	return vm.VM{
		ID: "1f0c6a2b9d3e", Name: "dev", Labels: map[string]string{"a": "b"}, Arch: "amd64",
		Image: vm.ImageRef{ID: "a1b2c3d4e5f6", Name: "debian:12"}, Spec: vm.Spec{VCPU: 2, Memory: vm.GiB, RootDisk: 2 * vm.GiB, WorkDisk: 3 * vm.GiB},
		Desired: vm.Running, State: vm.Running, Process: &vm.Process{PID: 42},
		Access:  vm.Access{HostKey: "ssh-ed25519 AAAA", HostKeyPrivate: "SECRET"},
		Created: time.Unix(1700000000, 0).UTC(), Timezone: "Asia/Tokyo", Locale: "ja_JP.UTF-8", Restart: vm.RestartAlways,
		Pending: []string{"vcpu"}, Settings: map[string]string{"colour": "red", "ports": "8080:80,9090:90", "egress": "list", "allow": "example.com"},
	}
}

func manifest() image.Manifest {
	return image.Manifest{ID: "a1b2c3d4e5f6", Name: "debian:12", Arch: "amd64", Packages: []image.Package{{Name: "bash", Version: "5"}}}
}

func (v *verbs) Create(_ context.Context, c vm.Caller, r lifecycle.CreateRequest) (op.Operation, error) {
	return v.began(c, lifecycle.KindCreate, r.Name, v.called(c, "create %s %s %v %+v %q %s %s %s", r.Name, r.Image, r.Labels, r.Spec, r.AuthorizedKeys, r.Timezone, r.Locale, r.Restart))
}

func (v *verbs) List(_ context.Context, c vm.Caller) ([]vm.VM, error) {
	return []vm.VM{machine()}, v.called(c, "list")
}

func (v *verbs) Find(_ context.Context, c vm.Caller, selector string) (vm.VM, error) {
	if err := v.called(c, "find %q", selector); err != nil {
		return vm.VM{}, err
	}
	return vm.Select([]vm.VM{machine()}, selector)
}

func (v *verbs) Start(_ context.Context, c vm.Caller, selector string) (op.Operation, error) {
	return v.began(c, lifecycle.KindStart, selector, v.called(c, "start %q", selector))
}

func (v *verbs) Stop(_ context.Context, c vm.Caller, selector string, timeout time.Duration) (op.Operation, error) {
	return v.began(c, lifecycle.KindStop, selector, v.called(c, "stop %q %s", selector, timeout))
}

func (v *verbs) Kill(_ context.Context, c vm.Caller, selector string) (op.Operation, error) {
	return v.began(c, lifecycle.KindKill, selector, v.called(c, "kill %q", selector))
}

func (v *verbs) Stats(_ context.Context, c vm.Caller, r lifecycle.StatsRequest) ([]vm.Stats, error) {
	return []vm.Stats{{ID: machine().ID, Name: "dev", Host: &vm.Usage{RSS: 7}}}, v.called(c, "stats %q %v %v", r.VMs, r.Labels, r.Shared)
}

func (v *verbs) Repair(_ context.Context, c vm.Caller, mend bool) ([]lifecycle.Mended, error) {
	found := reconcile.Finding{Kind: reconcile.Orphan, Owner: reconcile.Nobody, Subject: "tap x", Why: "nobody's", Repair: "remove it"}
	return []lifecycle.Mended{{Finding: found}}, v.called(c, "repair %v", mend)
}

func (v *verbs) Totals(context.Context) ([]usage.Total, error) {
	return []usage.Total{{Category: usage.Images, Count: 2, Size: usage.Size{Allocated: 5, Shared: 3}, Reclaimable: 1, Unused: []string{"old"}}}, v.called(vm.Caller{}, "totals")
}

func (v *verbs) Prune(_ context.Context, c vm.Caller, r usage.Request) ([]usage.Freed, error) {
	return []usage.Freed{
		{Category: usage.Golden, Name: "a", Why: "why", Size: 7}, {Category: usage.Trash, Name: "b", Why: "why", Size: 8, Err: fault.New(fault.Internal, "no")},
	}, v.called(c, "prune %v %v", r.DryRun, r.Trash)
}

func (v *verbs) Explain(_ context.Context, c vm.Caller, selector, destination string, probe bool) (api.Explanation, error) {
	return api.Explanation{VM: selector, Destination: destination, Explanation: network.Explanation{Passes: true}}, v.called(c, "explain %s %s %v", selector, destination, probe)
}

func (v *verbs) UninstallNetwork(_ context.Context, c vm.Caller, dryRun bool) ([]string, error) {
	return nil, v.called(c, "uninstall network %v", dryRun)
}

func (v *verbs) Adopt(_ context.Context, c vm.Caller, selector, name string) (op.Operation, error) {
	return v.began(c, lifecycle.KindAdopt, selector, v.called(c, "adopt %q %q", selector, name))
}

// deleted is when what is in the trash came there, and when a checkpoint was taken.
var deleted = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (v *verbs) Trash(c vm.Caller) []lifecycle.Trashed {
	gone := machine()
	gone.Deleted = deleted
	_ = v.called(c, "trash")
	return []lifecycle.Trashed{{VM: gone, Expires: deleted.Add(time.Hour)}}
}

func (v *verbs) Restore(_ context.Context, c vm.Caller, selector, name string) (op.Operation, error) {
	return v.began(c, lifecycle.KindRestore, selector, v.called(c, "restore %q %q", selector, name))
}

func (v *verbs) Fork(_ context.Context, c vm.Caller, selector string, r lifecycle.ForkRequest) (op.Operation, error) {
	return v.began(c, lifecycle.KindFork, selector, v.called(c, "fork %q %q %d", selector, r.Name, r.Count))
}

func (v *verbs) Checkpoint(_ context.Context, c vm.Caller, selector, name string) (op.Operation, error) {
	return v.began(c, lifecycle.KindCheckpoint, selector, v.called(c, "checkpoint %q %q", selector, name))
}

func (v *verbs) Checkpoints(_ context.Context, c vm.Caller, selector string) ([]lifecycle.Checkpoint, error) {
	return []lifecycle.Checkpoint{
		{Manifest: snapshot.Manifest{Name: "a", Created: deleted, VM: machine()}, Size: 7},
		{Manifest: snapshot.Manifest{Name: "b"}, Err: fault.New(fault.Corrupt, "no")},
	}, v.called(c, "checkpoints %q", selector)
}

func (v *verbs) Rollback(_ context.Context, c vm.Caller, selector, name string) (op.Operation, error) {
	return v.began(c, lifecycle.KindRollback, selector, v.called(c, "rollback %q %q", selector, name))
}

func (v *verbs) DeleteCheckpoint(_ context.Context, c vm.Caller, selector, name string) error {
	return v.called(c, "delete checkpoint %q %q", selector, name)
}

func (v *verbs) Destroy(c vm.Caller, selector string) (op.Operation, error) {
	return v.began(c, lifecycle.KindDestroy, selector, v.called(c, "destroy %q", selector))
}

func (v *verbs) Delete(_ context.Context, c vm.Caller, selector string, r lifecycle.DeleteRequest) (op.Operation, error) {
	return v.began(c, lifecycle.KindDelete, selector, v.called(c, "delete %q %v", selector, r.Force))
}

func (v *verbs) Set(_ context.Context, c vm.Caller, selector string, r lifecycle.SetRequest) (op.Operation, error) {
	return v.began(c, lifecycle.KindSet, selector, v.called(c, "set %q %v %d", selector, r.Settings, len(r.Labels)))
}

func (v *verbs) PlanSet(_ context.Context, c vm.Caller, selector string, r lifecycle.SetRequest) ([]lifecycle.Altered, error) {
	return []lifecycle.Altered{{Key: "vcpu", From: "1", To: "2", Restart: "why"}}, v.called(c, "plan %q %v %s", selector, r.Settings, *r.Labels["a"])
}

func (v *verbs) Ping(_ context.Context, c vm.Caller, selector string) (agentproto.Info, time.Duration, error) {
	return agentproto.Info{Agent: "1.0", Kernel: "6.1", OS: "Debian", Uptime: time.Minute, AgentRSS: 7}, time.Millisecond, v.called(c, "ping %q", selector)
}

func (v *verbs) Listeners(_ context.Context, c vm.Caller, selector string) (agentproto.Listeners, error) {
	return agentproto.Listeners{All: []agentproto.Socket{{Address: "[::]:80", PID: 7, Program: "httpd"}, {Address: "127.0.0.1:90"}}, More: 2}, v.called(c, "listeners %q", selector)
}

func (v *verbs) ClosedDoors(vm.ID) map[vm.Door]error {
	return map[vm.Door]error{vm.DoorsOf(machine())[1]: fault.New(fault.InUse, "taken")}
}

func (v *verbs) DNS(_ context.Context, c vm.Caller) (api.DNS, error) {
	return named(), v.called(c, "dns")
}

func (v *verbs) SetUpDNS(_ context.Context, c vm.Caller, dryRun bool) (api.DNSChange, error) {
	return api.DNSChange{Steps: []string{"tell it"}, Done: !dryRun, DNS: named()}, v.called(c, "set up dns %v", dryRun)
}

func (v *verbs) UndoDNS(_ context.Context, c vm.Caller, dryRun bool) (api.DNSChange, error) {
	return api.DNSChange{Done: !dryRun}, v.called(c, "undo dns %v", dryRun)
}

func named() api.DNS {
	return api.DNS{Server: "127.0.0.1:42069", Wiring: "systemd-resolved", Proof: &api.DNSProof{Name: "dev.vm", Address: "10.0.0.2", Error: fault.New(fault.Unavailable, "no")}}
}

func (v *verbs) Dial(_ context.Context, c vm.Caller, selector, host string, port int) (net.Conn, error) {
	if err := v.called(c, "dial %q %s %d", selector, host, port); err != nil {
		return nil, err
	}
	return v.dialed()
}

func (v *verbs) SSH(_ context.Context, c vm.Caller, selector string) (net.Conn, error) {
	if err := v.called(c, "ssh %q", selector); err != nil {
		return nil, err
	}
	return v.dialed()
}

func (v *verbs) ListImages() ([]image.Manifest, error) {
	return []image.Manifest{manifest()}, v.called(vm.Caller{}, "images")
}

func (v *verbs) FindImage(selector string) (image.Manifest, error) {
	if err := v.called(vm.Caller{}, "image %q", selector); err != nil {
		return image.Manifest{}, err
	}
	return image.Select([]image.Manifest{manifest()}, selector)
}

func (v *verbs) ImageUsers(context.Context, vm.Caller) (map[string][]string, error) {
	return map[string][]string{manifest().ID: {"dev"}}, nil
}

func (v *verbs) PullImage(c vm.Caller, name string) (op.Operation, error) {
	return v.began(c, lifecycle.KindPull, name, v.called(c, "pull %q", name))
}

func (v *verbs) WarmImage(_ context.Context, c vm.Caller, r lifecycle.WarmRequest) (op.Operation, error) {
	return v.began(c, lifecycle.KindWarm, r.Image, v.called(c, "warm %q %d %d", r.Image, r.VCPU, r.Memory))
}

func (v *verbs) ImportImage(c vm.Caller, r lifecycle.ImportRequest, kernelFrom string) (op.Operation, error) {
	if err := v.called(c, "import %q %q %q", r.Name, r.Source, kernelFrom); err != nil {
		return op.Operation{}, err
	}
	job := v.begin(c, lifecycle.KindImport, r.Name)
	if v.interrupt {
		r.Interrupt()
	}
	go func() {
		tar, err := io.ReadAll(r.Tar)
		job.Finish(err)
		v.tree <- received{tar, err}
	}()
	return job.Snapshot(), nil
}

func (v *verbs) DeleteImage(_ context.Context, c vm.Caller, selector string) error {
	return v.called(c, "delete image %q", selector)
}

func (v *verbs) Status(context.Context) (api.Status, error) {
	return api.Status{PID: 7, Build: buildinfo.Info{Version: "1"}, VMs: map[string]int{"running": 1}, Operations: v.tracker.List()}, v.called(vm.Caller{}, "status")
}

func (v *verbs) Metrics(context.Context) (string, error) {
	return "banger_vms 1\n", v.called(vm.Caller{}, "metrics")
}

func (v *verbs) Doctor(context.Context) []api.Check {
	_ = v.called(vm.Caller{}, "doctor")
	return []api.Check{{Name: "KVM", Result: api.CheckFailed, Detail: "none", Fix: "get one"}}
}

func (v *verbs) Upgrade(context.Context) (api.Upgrade, error) {
	return api.Upgrade{From: buildinfo.Info{Stamp: 1}, To: buildinfo.Info{Stamp: 2}, Done: true}, v.called(vm.Caller{}, "upgrade")
}
