// Package firecracker runs VMs on Firecracker.
//
// A VM boots from one configuration file by one execution: no sequence of API calls stands between
// its creation and its kernel. The API socket serves to learn that the guest runs, and later that it
// still does. A VM that goes on from a snapshot needs one call there.
//
// The process is a session of its own in a cgroup of its own and outlives the daemon, which finds it
// again by its identity.
package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"banger/internal/fault"
	"banger/internal/host/drain"
	"banger/internal/host/exec"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

// Bounds of waiting.
const (
	startTime  = 60 * time.Second // until the guest's first instruction
	attachTime = 5 * time.Second  // for an answer of one that runs already
	changeTime = 10 * time.Second // until all vCPUs stand still or go on
	killGrace  = 3 * time.Second  // after SIGTERM
)

// Driver runs the VMs of one instance.
type Driver struct {
	binary string
	layout vm.Layout
	groups *proc.Groups
	log    *slog.Logger

	mu      sync.Mutex
	minders map[vm.Process]*minder
	closed  bool
	known   probed
}

// vcpuThread is how the names of a guest's vCPU threads begin.
const vcpuThread = "fc_vcpu"

// probed remembers the answer of a binary that has not changed since.
type probed struct {
	version Version
	path    string
	size    int64
	changed time.Time
}

// New returns a driver that runs binary, a path or a name to look up in PATH. Firecracker's own log
// goes to each VM's file and, at debug level, to log.
func New(binary string, layout vm.Layout, groups *proc.Groups, log *slog.Logger) *Driver {
	return &Driver{binary: binary, layout: layout, groups: groups, log: log, minders: map[vm.Process]*minder{}}
}

// Version tells which Firecracker would run a VM. It fails as Probe does. The answer is kept until
// the binary changes, so that asking early makes the first start faster.
func (d *Driver) Version(ctx context.Context) (Version, error) {
	p, err := d.probe(ctx)
	return p.version, err
}

func (d *Driver) probe(ctx context.Context) (probed, error) {
	path, err := exec.LookPath(d.binary)
	if err != nil {
		_, err := Probe(ctx, d.binary)
		return probed{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return probed{}, err
	}
	d.mu.Lock()
	known := d.known
	d.mu.Unlock()
	if known.path == path && known.size == info.Size() && known.changed.Equal(info.ModTime()) {
		return known, nil
	}
	version, err := Probe(ctx, path)
	if err != nil {
		return probed{version: version}, err
	}
	known = probed{version: version, path: path, size: info.Size(), changed: info.ModTime()}
	d.mu.Lock()
	d.known = known
	d.mu.Unlock()
	return known, nil
}

// Start runs m and returns once its guest executes. console receives each line of the guest's
// serial console, safe to show and at most 1 KiB long; it must not block. When Firecracker refuses
// the machine, nothing of it is left but the logs, whose last lines are in the error.
func (d *Driver) Start(ctx context.Context, m vm.Machine, console func(line string)) (vm.Process, error) {
	return d.execute(ctx, m, console, boot{})
}

// origin is what a machine's guest comes from.
type origin interface {
	op() string               // what is done to the VM, for errors
	prepare(vm.Machine) error // writes what Firecracker reads
	arguments() []string      // of Firecracker, beside those that every machine has
	await(context.Context, *minder, vm.Process, vm.Machine) error
}

// boot is the origin of a guest that begins with its kernel.
type boot struct{}

func (boot) op() string { return "start hypervisor of VM" }

func (boot) prepare(m vm.Machine) error {
	text, err := configure(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.Dir, fileConfig), text, 0o600)
}

func (boot) arguments() []string { return []string{"--config-file", fileConfig} }

func (boot) await(ctx context.Context, watch *minder, p vm.Process, m vm.Machine) error {
	return watch.awaitGuest(ctx, p, m)
}

// execute runs a Firecracker for m until its guest executes.
func (d *Driver) execute(ctx context.Context, m vm.Machine, console func(string), from origin) (vm.Process, error) {
	// Two hypervisors on one disk would destroy it, so this is checked once more where it counts.
	if pids, err := d.groups.Members(m.ID); err != nil || len(pids) > 0 {
		return vm.Process{}, errors.Join(err, fault.New(fault.WrongState, "a hypervisor of this VM still runs as process %v", pids).
			WithOp(from.op(), string(m.ID)).WithHint("end it: `banger vm kill %s`", m.ID))
	}
	p, err := d.start(ctx, m, console, from)
	if err == nil {
		return p, nil
	}
	// A process that was begun is ended here also when ctx is over.
	err = errors.Join(err, d.groups.Remove(context.WithoutCancel(ctx), m.ID))
	f := fault.From(err)
	if f.Op == "" {
		f = f.WithOp(from.op(), string(m.ID))
	}
	if f.Hint == "" {
		f = f.WithHint("run `banger doctor`, and look at the logs")
	}
	return vm.Process{}, f.WithLogs(d.layout.FirecrackerLog(m.ID), d.layout.ConsoleLog(m.ID))
}

func (d *Driver) start(ctx context.Context, m vm.Machine, console func(string), from origin) (vm.Process, error) {
	binary, err := d.probe(ctx)
	if err != nil {
		return vm.Process{}, err
	}
	if err := errors.Join(clearSockets(m.Dir), from.prepare(m)); err != nil {
		return vm.Process{}, err
	}
	logs, err := openLogs(d.layout, m.ID, m.Dir, console, d.log)
	if err != nil {
		return vm.Process{}, err
	}
	p, err := d.spawn(m, binary.path, from.arguments())
	if err != nil {
		if closed := logs.close(); !errors.Is(err, proc.ErrGone) || closed != nil {
			return vm.Process{}, errors.Join(err, closed)
		}
		return vm.Process{}, refusal(logs.last())
	}
	watch := d.mind(p, logs)
	if err := d.groups.Adopt(ctx, m.ID, p.PID); err != nil {
		return vm.Process{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return p, from.await(ctx, watch, p, m)
}

// clearSockets removes what an earlier run left in a machine's directory: Firecracker will not bind a socket whose
// file exists.
func clearSockets(dir string) error {
	for _, socket := range []string{vm.FileAPISocket, vm.FileVsock} {
		if err := os.Remove(filepath.Join(dir, socket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// spawn starts the process inside its cgroup. ErrGone means that it ended at once.
func (d *Driver) spawn(m vm.Machine, binary string, arguments []string) (vm.Process, error) {
	group, err := d.groups.Make(m.ID)
	if err != nil {
		return vm.Process{}, err
	}
	defer group.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return vm.Process{}, err
	}
	defer null.Close()
	console, err := drain.OpenFIFO(filepath.Join(m.Dir, fileConsole))
	if err != nil {
		return vm.Process{}, err
	}
	defer console.Close()
	child, err := os.StartProcess(binary, append([]string{
		"firecracker", "--id", string(m.ID), "--api-sock", vm.FileAPISocket,
		"--log-path", fileLog, "--level", "Info", "--show-level",
	}, arguments...), &os.ProcAttr{
		Dir:   m.Dir,
		Env:   []string{},
		Files: []*os.File{null, console, console},
		Sys:   &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())},
	})
	if err != nil {
		return vm.Process{}, fmt.Errorf("execute Firecracker: %w", err)
	}
	p, err := proc.Identify(child.Pid)
	if err != nil {
		_ = child.Kill() // unless it ended already, it would be waited for as long as the guest runs
		_, werr := child.Wait()
		return vm.Process{}, errors.Join(err, werr)
	}
	// From here on it is watched through its identity, like a process that was found again.
	return p, child.Release()
}

// Attach takes a VM back after a restart of the daemon, and tells whether its guest is paused: p must be
// the very process that was recorded, and its API must answer with the VM's id.
func (d *Driver) Attach(ctx context.Context, id vm.ID, p vm.Process, console func(line string)) (isPaused bool, err error) {
	refuse := func(err error) error {
		return fault.New(fault.Unavailable, "%w", err).WithOp("take back VM", string(id)).
			WithHint("end it: `banger vm kill %s`, and start it again", id).WithLogs(d.layout.FirecrackerLog(id))
	}
	if !proc.Alive(p) {
		return false, refuse(proc.ErrGone)
	}
	logs, err := openLogs(d.layout, id, d.layout.Jail(id), console, d.log)
	if err != nil {
		return false, refuse(err)
	}
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	state, err := stateOf(ctx, d.apiSocket(id), id)
	if err == nil && state != running && state != paused {
		err = fmt.Errorf("the guest is %q", state)
	}
	if err != nil {
		return false, refuse(errors.Join(err, logs.close()))
	}
	d.mind(p, logs)
	return state == paused, nil
}

// Pause stops the guest's vCPUs. What they had asked of the disks is still written, nothing after that.
// A guest that is paused already stays so.
func (d *Driver) Pause(ctx context.Context, id vm.ID) error { return d.change(ctx, id, statePaused) }

// Resume lets the guest's vCPUs go on. A guest that runs already goes on running.
func (d *Driver) Resume(ctx context.Context, id vm.ID) error { return d.change(ctx, id, stateResumed) }

func (d *Driver) change(ctx context.Context, id vm.ID, to vmState) error {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	err := change(ctx, d.apiSocket(id), to)
	if err == nil {
		return nil
	}
	return fault.New(fault.Unavailable, "Firecracker does not take the state %q: %w", to, err).WithOp("change state of VM", string(id)).
		WithHint("end it: `banger vm kill %s`, and start it again", id).WithLogs(d.layout.FirecrackerLog(id))
}

func (d *Driver) apiSocket(id vm.ID) string {
	return filepath.Join(d.layout.Jail(id), vm.FileAPISocket)
}

// Wait returns nil when p has ended and its last words are in the logs, or ctx's error.
func (d *Driver) Wait(ctx context.Context, p vm.Process) error {
	d.mu.Lock()
	minder, closed := d.minders[p], d.closed
	d.mu.Unlock()
	switch {
	case minder != nil:
	case closed && proc.Alive(p):
		return context.Canceled // as for those who waited when it was closed
	default:
		return proc.Wait(ctx, p)
	}
	select {
	case <-minder.done:
		return minder.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Kill ends p: SIGTERM, 3 s later SIGKILL. It returns when p has ended. Gone is success.
func (d *Driver) Kill(ctx context.Context, p vm.Process) error {
	if err := proc.Kill(ctx, p, killGrace); err != nil {
		return fault.New(fault.Internal, "%w", err).WithOp("kill hypervisor", fmt.Sprint(p.PID)).
			WithHint("look at the process with `ps -l %d`", p.PID)
	}
	return d.Wait(ctx, p)
}

// Alive reports whether it is this very process that runs, not another with its pid.
func (*Driver) Alive(p vm.Process) bool { return proc.Alive(p) }

// CPUTime is what the guest's vCPUs have used so far.
func (*Driver) CPUTime(p vm.Process) (time.Duration, error) { return proc.CPUTime(p, vcpuThread) }

// Release removes the cgroup or scope that the record names and ends whatever still runs in it.
func (d *Driver) Release(ctx context.Context, r vm.Record) error {
	return d.groups.Remove(ctx, r.VM)
}

// Found lists the VMs that have a cgroup or a scope.
func (d *Driver) Found(context.Context) ([]vm.ID, error) { return d.groups.List() }

// Close lets go of all VMs. They run on; another daemon can attach to them.
func (d *Driver) Close() {
	d.mu.Lock()
	d.closed = true
	var all []*minder
	for _, m := range d.minders {
		all = append(all, m)
	}
	d.mu.Unlock()
	for _, m := range all {
		m.let()
		<-m.done
	}
}
