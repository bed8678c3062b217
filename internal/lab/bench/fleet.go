package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/host/proc"
	"banger/internal/image"
	"banger/internal/lab/standin"
	"banger/internal/op"
	"banger/internal/vm"
)

// Fleet measures what a real daemon costs as its VMs become many. Firecracker is a stand-in; database,
// directories, cgroups and TAPs are real. It must have network and mounts of its own.
type Fleet struct {
	Programs string // directory of banger, bangerd, banger-agent and banger-lab
	VMs      int    // at least twice few
	Log      io.Writer
}

// few is how many VMs a small fleet has.
const few = 10

// Fleeted is what one run saw. It travels as JSON.
type Fleeted struct {
	VMs     int             `json:"vms"`
	Creates []FleetCreate   `json:"creates"`   // in their order
	Few     []time.Duration `json:"list_few"`  // nanoseconds of CPU, command's and daemon's, of each `banger vm list`
	Many    []time.Duration `json:"list_many"` // the same with all VMs
	Watched float64         `json:"watched"`   // share of a core that the daemon takes while all VMs' stats are watched
	RSS     int64           `json:"rss"`       // bytes that the daemon holds with all VMs
	Before  Held            `json:"before"`
	After   Held            `json:"after"`
}

// FleetCreate is one create.
type FleetCreate struct {
	Own time.Duration `json:"own"` // nanoseconds in which neither Firecracker nor its guest was waited for
	CPU time.Duration `json:"cpu"` // nanoseconds of the daemon's
}

// Held is what the daemon holds.
type Held struct {
	Goroutines  int `json:"goroutines"`
	Descriptors int `json:"descriptors"`
}

// fleet is a run.
type fleet struct {
	Fleet
	home    string
	client  *client.Client
	process vm.Process // the daemon's
}

// Run makes the VMs one after another, and removes them all.
func (f Fleet) Run(ctx context.Context) (m Fleeted, err error) {
	home, err := os.MkdirTemp("", "banger-fleet-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	r := &fleet{Fleet: f, home: home, client: client.New(filepath.Join(home, "banger.sock"))}
	if err := r.prepare(); err != nil {
		return m, err
	}
	pid, err := start(r.banger(ctx, "status", "-o", "json"))
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, stop(pid)) }()
	if r.process, err = proc.Identify(pid); err != nil {
		return m, err
	}
	m, err = r.measure(ctx)
	if err != nil {
		err = errors.Join(err, r.remove(context.WithoutCancel(ctx)))
	}
	return m, err
}

func (r *fleet) measure(ctx context.Context) (Fleeted, error) {
	m := Fleeted{VMs: r.VMs}
	// Whatever is made once, or kept in a pool, is made for these.
	for i := range few {
		if _, err := r.create(ctx, "warm-"+strconv.Itoa(i)); err != nil {
			return m, err
		}
	}
	if err := r.remove(ctx); err != nil {
		return m, err
	}
	var err error
	if m.Before, err = r.rest(ctx, Held{}); err != nil {
		return m, err
	}
	for i := range r.VMs {
		if i == few {
			if m.Few, err = r.list(ctx); err != nil {
				return m, err
			}
		}
		c, err := r.create(ctx, "vm-"+strconv.Itoa(i))
		if err != nil {
			return m, err
		}
		m.Creates = append(m.Creates, c)
		if n := i + 1; n%100 == 0 {
			fmt.Fprintf(r.Log, "%d VMs; the last create: %s of banger's own, %s of CPU\n", n, c.Own.Round(time.Millisecond), c.CPU.Round(time.Millisecond))
		}
	}
	if m.Many, err = r.list(ctx); err != nil {
		return m, err
	}
	if m.Watched, err = r.watch(ctx); err != nil {
		return m, err
	}
	if m.RSS, err = proc.RSS(r.process); err != nil {
		return m, err
	}
	if err := r.remove(ctx); err != nil {
		return m, err
	}
	m.After, err = r.rest(ctx, m.Before)
	return m, err
}

// banger is the real command.
func (r *fleet) banger(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(r.Programs, "banger"), args...)
	c.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.home, "XDG_RUNTIME_DIR=" + r.home,
		"BANGER_STATE_DIR=" + filepath.Join(r.home, "state"), "BANGER_SOCKET=" + filepath.Join(r.home, "banger.sock"),
		"BANGER_FIRECRACKER_BIN=" + filepath.Join(r.home, standin.Name), "BANGER_SUBNET=10.199.0.0/16",
		"BANGER_ADMISSION_MEMORY_OVERCOMMIT=100", "BANGER_ADMISSION_LOW_WATER=1M", "BANGER_WARM=off", // no guest takes any
	}
	return c
}

func (r *fleet) create(ctx context.Context, name string) (FleetCreate, error) {
	used, err := proc.CPUTime(r.process, "")
	if err != nil {
		return FleetCreate{}, err
	}
	o, err := r.client.CreateVM(ctx, api.CreateVM{Name: name, Image: fleetImage, VCPU: 1, Memory: 64 * vm.MiB, WorkDisk: vm.GiB})
	if err != nil {
		return FleetCreate{}, err
	}
	if o, err = r.ended(ctx, o); err != nil {
		return FleetCreate{}, err
	}
	now, err := proc.CPUTime(r.process, "")
	c := FleetCreate{Own: o.Ended.Sub(o.Created), CPU: now - used}
	for _, s := range o.Stages {
		if s.Name == stageHypervisor || s.Name == stageGuest {
			c.Own -= s.Duration
		}
	}
	return c, err
}

// ended waits for the end of an operation.
func (r *fleet) ended(ctx context.Context, o op.Operation) (op.Operation, error) {
	last, err := r.client.Follow(ctx, o.ID, func(op.Operation) {})
	if err == nil && last.Error != nil {
		err = last.Error
	}
	return last, err
}

// remove deletes all VMs, some side by side.
func (r *fleet) remove(ctx context.Context) error {
	all, err := r.client.VMs(ctx)
	if err != nil {
		return err
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(8)
	for _, v := range all {
		eg.Go(func() error {
			o, err := r.client.DeleteVM(ctx, string(v.ID), api.DeleteVM{Force: true, Now: true})
			if err == nil {
				_, err = r.ended(ctx, o)
			}
			return err
		})
	}
	return eg.Wait()
}

// list returns what each of some runs of `banger vm list` cost.
func (r *fleet) list(ctx context.Context) (costs []time.Duration, err error) {
	for range listRuns {
		used, err := proc.CPUTime(r.process, "")
		if err != nil {
			return nil, err
		}
		c := r.banger(ctx, "vm", "list")
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fault.New(fault.Internal, "%w", err).WithOp("run", "banger vm list").WithDetail(string(out))
		}
		now, err := proc.CPUTime(r.process, "")
		if err != nil {
			return nil, err
		}
		costs = append(costs, c.ProcessState.UserTime()+c.ProcessState.SystemTime()+now-used)
	}
	return costs, nil
}

// Bounds of waiting until the daemon holds no more than it did.
const (
	restBudget   = 30 * time.Second
	restInterval = 500 * time.Millisecond
)

// crowd has the daemon asked by many at once, so that its pools are as full as they stay.
func (r *fleet) crowd(ctx context.Context) error {
	eg, ctx := errgroup.WithContext(ctx)
	for range 16 {
		eg.Go(func() error {
			for range 20 {
				if _, err := r.client.Operations(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return eg.Wait()
}

// rest returns what the daemon holds when it has nothing to do: what it is left with after a while, or as
// soon as that is no more than enough. Connections and pools take their time.
func (r *fleet) rest(ctx context.Context, enough Held) (Held, error) {
	tick := time.NewTicker(restInterval)
	defer tick.Stop()
	var held Held
	if err := r.crowd(ctx); err != nil {
		return held, err
	}
	same := 0
	for begun := time.Now(); ; {
		r.client.CloseIdle() // the daemon holds its end of each
		st, err := r.client.Status(ctx)
		if err != nil {
			return held, err
		}
		open, err := os.ReadDir("/proc/" + strconv.Itoa(r.process.PID) + "/fd")
		if err != nil {
			return held, err
		}
		now := Held{Goroutines: st.Goroutines, Descriptors: len(open)}
		if same++; now != held {
			held, same = now, 0
		}
		fits := held.Goroutines <= enough.Goroutines && held.Descriptors <= enough.Descriptors
		if fits || enough == (Held{}) && same == 10 || time.Since(begun) > restBudget {
			return held, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return held, context.Cause(ctx)
		}
	}
}

// The image that all are made from: nothing ever boots it.
const (
	fleetImage   = "fleet"
	fleetImageID = "0123456789ab"
)

// prepare makes image, hypervisor and a processor with virtualization.
func (r *fleet) prepare() error {
	if err := os.Symlink(filepath.Join(r.Programs, "banger-lab"), filepath.Join(r.home, standin.Name)); err != nil {
		return err
	}
	dir := vm.Layout{State: filepath.Join(r.home, "state")}.Image(fleetImageID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	disk := image.Disk{FSType: "ext4", Size: 64 * vm.MiB}
	manifest, err := json.Marshal(image.Manifest{
		ID: fleetImageID, Name: fleetImage, Arch: runtime.GOARCH, Created: time.Now(), Root: disk, WorkSeed: image.Seed{Disk: disk}, Init: "/sbin/init",
	})
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		image.FileManifest: string(manifest), image.FileKernel: "", image.FileModules: "", image.FileRoot: "", image.FileWorkSeed: "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{image.FileRoot, image.FileWorkSeed} {
		if err := os.Truncate(filepath.Join(dir, name), disk.Size); err != nil {
			return err
		}
	}
	return r.virtualize()
}

// virtualize has the daemon find what it needs before it starts a Firecracker: a processor's flag, which
// this machine's may lack. /dev/kvm itself is needed.
func (r *fleet) virtualize() error {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "flags") {
			line = strings.TrimRight(line, "\n") + " svm\n"
		}
		lines = append(lines, line)
	}
	path := filepath.Join(r.home, "cpuinfo")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount(path, "/proc/cpuinfo", "", unix.MS_BIND, "")
}
