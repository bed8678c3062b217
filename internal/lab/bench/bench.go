package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/host/block"
	"banger/internal/host/proc"
	"banger/internal/image"
	"banger/internal/lab/scripts"
	"banger/internal/op"
	"banger/internal/snapshot"
	"banger/internal/vm"
)

// Bench measures on the host that it runs on: the lab's.
type Bench struct {
	Image  string
	Memory string // of each guest, such as 256M
	Runs   int    // at least 1
	Work   string // directory on the file system of the state directory
	Log    io.Writer
}

// pattern is the VM that bare boots copy; it also warms everything up.
const pattern = "bench-pattern"

// BootTime bounds a boot: on one emulated processor, maybe beside many others. The daemon must allow for it.
const BootTime = 20 * time.Minute

// attempts is how often a round is tried in which the emulator breaks a guest.
const attempts = 3

// errBroken is a boot that says nothing about banger.
var errBroken = errors.New("the emulator broke a guest's kernel")

// run is a run of the benchmark.
type run struct {
	Bench
	idle   api.Status // of a daemon that has no VM yet
	layout vm.Layout
	floor  bare
	ssh    bool // the image offers it
}

// Run measures all verbs and bare boots in turn. All that it makes it takes down again, but not when it
// fails: it is for throw-away hosts.
func (b Bench) Run(ctx context.Context) (Measured, error) {
	m := Measured{Image: b.Image}
	r := &run{Bench: b}
	if err := r.prepare(ctx, &m.Weight); err != nil {
		return m, err
	}
	for i := range b.Runs {
		round, err := r.round(ctx, i)
		if err != nil {
			return m, err
		}
		bare := round.Bare.Ready
		fmt.Fprintf(b.Log, "round %d of %d: bare boot %s", i+1, b.Runs, bare.Round(time.Millisecond))
		for _, name := range names() {
			took := round.Verbs[name].ready()
			fmt.Fprintf(b.Log, ", %s %s (%.3f)", name, took.Round(time.Millisecond), float64(took)/float64(bare))
		}
		fmt.Fprintln(b.Log)
		m.Rounds = append(m.Rounds, round)
	}
	if err := banger(ctx, nil, "vm", "delete", "--now", pattern); err != nil {
		return m, err
	}
	var after api.Status
	err := banger(ctx, &after, "status")
	m.Weight.Daemon = max(r.idle.RSS, after.RSS) // idle before its first VM and after its last
	return m, err
}

// prepare makes the pattern, weighs what is in it, boots everything once unmeasured, and has warm creates prepared.
func (r *run) prepare(ctx context.Context, w *Weight) error {
	if err := banger(ctx, &r.idle, "status"); err != nil {
		return err
	}
	r.layout = vm.Layout{State: r.idle.StateDir}
	var img api.Image
	if err := banger(ctx, &img, "image", "show", r.Image); err != nil {
		return err
	}
	r.ssh = slices.ContainsFunc(img.Services, func(s image.Service) bool { return s.Port == 22 })
	return r.insist(ctx, "", func() error {
		c, err := r.create(ctx, pattern, "--cold")
		if err != nil {
			return err
		}
		var ping api.Ping
		if err := banger(ctx, &ping, "vm", "ping", pattern); err != nil {
			return err
		}
		if err := banger(ctx, nil, "vm", "kill", pattern); err != nil {
			return err
		}
		id := vm.ID(c.Operation.Subject)
		initrd, err := os.Stat(filepath.Join(r.layout.Jail(id), vm.FileInitrd))
		if err != nil {
			return err
		}
		program, err := exec.LookPath("banger-agent")
		if err != nil {
			return err
		}
		agent, err := os.Stat(program)
		if err != nil {
			return err
		}
		w.Agent, w.Initrd, w.AgentBinary = ping.AgentRSS, initrd.Size(), agent.Size()
		if r.floor, err = newBare(r.layout, r.idle.Instance, id, r.Work); err != nil {
			return err
		}
		if _, err := r.floor.boot(ctx); err != nil {
			return err
		}
		return warm(ctx, r.layout, r.Image, r.Memory)
	})
}

// verifyInterval is how often is looked whether a golden snapshot was verified.
const verifyInterval = 200 * time.Millisecond

// warm has creates be warm from now on. It returns once nothing more is done for that: the daemon verifies a golden
// snapshot in the background, which takes as much of the processor as a boot.
func warm(ctx context.Context, layout vm.Layout, image, memory string) error {
	if err := banger(ctx, nil, "image", "warm", image, "--memory", memory); err != nil {
		return err
	}
	tick := time.NewTicker(verifyInterval)
	defer tick.Stop()
	for {
		verified, err := verified(layout.Golden())
		if err != nil || verified {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// verified reports whether all golden snapshots were.
func verified(golden string) (bool, error) {
	all, err := filepath.Glob(filepath.Join(golden, "*", snapshot.FileManifest))
	if err != nil {
		return false, err
	}
	for _, file := range all {
		text, err := os.ReadFile(file)
		if err != nil {
			return false, err
		}
		var m snapshot.Manifest
		if err := json.Unmarshal(text, &m); err != nil || m.MemorySHA256 == "" {
			return false, err
		}
	}
	return true, nil
}

// round measures everything once.
func (r *run) round(ctx context.Context, i int) (m Round, err error) {
	name := "bench-" + strconv.Itoa(i)
	err = r.insist(ctx, pattern, func() error {
		m = Round{Verbs: map[Name]Verb{}}
		return r.measure(ctx, name, i%2 == 1, &m)
	})
	return m, err
}

// measure has one VM live its whole life, beside a bare boot, and others go on from snapshots.
func (r *run) measure(ctx context.Context, name string, bareFirst bool, m *Round) error {
	do := func(verb Name, measured func() (Verb, error)) (err error) {
		if err := fresh(); err != nil {
			return err
		}
		m.Verbs[verb], err = measured()
		return err
	}
	cold := func() error {
		if err := do(ColdCreate, func() (Verb, error) { return r.create(ctx, name, "--cold") }); err != nil {
			return err
		}
		return settled(ctx, name) // or a bare boot after it would have to share the processor with it
	}
	boot := func() (err error) {
		if err := fresh(); err != nil {
			return err
		}
		m.Bare, err = r.floor.boot(ctx)
		return err
	}
	// Which comes first alternates, so that a machine that gets slower or faster favours neither.
	pair := []func() error{cold, boot}
	if bareFirst {
		slices.Reverse(pair)
	}
	for _, measured := range pair {
		if err := measured(); err != nil {
			return err
		}
	}
	if err := do(Stop, func() (Verb, error) { return verb(ctx, &outcomes{}, "vm", "stop", name) }); err != nil {
		return err
	}
	// Nothing else writes to the disk now.
	var err error
	if m.Growth, err = r.growth(ctx, name+"-disk"); err != nil {
		return err
	}
	if err := do(Start, func() (Verb, error) { return r.guest(ctx, name, &outcomes{}, "vm", "start", name) }); err != nil {
		return err
	}
	if err := settled(ctx, name); err != nil {
		return err
	}
	fork := name + "-fork"
	if err := do(Fork, func() (Verb, error) { return r.guest(ctx, fork, &forked{}, "vm", "fork", name, fork) }); err != nil {
		return err
	}
	if err := errors.Join(remove(ctx, fork), banger(ctx, nil, "vm", "kill", name)); err != nil {
		return err
	}
	if err := do(Delete, func() (Verb, error) { return verb(ctx, &outcomes{}, "vm", "delete", "--now", name) }); err != nil {
		return err
	}
	if err := do(WarmCreate, func() (Verb, error) { return r.create(ctx, name+"-warm") }); err != nil {
		return err
	}
	return remove(ctx, name+"-warm")
}

// fresh sees to it that nobody pays for what came before: for what is to be written still, and for memory that a snapshot or
// a guest has left in pieces. A Firecracker that finds no huge pages takes 0.2 s longer to load its kernel.
func fresh() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/compact_memory", []byte("1"), 0)
}

// A guest has settled once it has used at most a tenth of a processor for so many seconds in a row: udev's workers, for one,
// end after three idle ones.
const (
	idleSeconds  = 4
	idleShare    = 10
	settleBudget = time.Minute // one that is never idle is measured as it is
)

// settled waits until a VM's guest has nothing more to do of its boot.
func settled(ctx context.Context, name string) error {
	var v api.VM
	if err := banger(ctx, &v, "vm", "show", name); err != nil {
		return err
	}
	hypervisor, err := proc.Identify(v.PID)
	if err != nil {
		return err
	}
	end := time.After(settleBudget)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last, err := proc.CPUTime(hypervisor, "")
	for idle := 0; err == nil && idle < idleSeconds; idle++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return nil
		case <-tick.C:
		}
		before := last
		if last, err = proc.CPUTime(hypervisor, ""); last-before >= time.Second/idleShare {
			idle = -1
		}
	}
	return err
}

// remove destroys VMs, running or not.
func remove(ctx context.Context, names ...string) error {
	return banger(ctx, nil, append([]string{"vm", "delete", "--now", "--force", "--yes"}, names...)...)
}

// answer is what a command prints that carries out one operation.
type answer interface {
	// operation is what it told of, with the VM that it is about.
	operation() (op.Operation, vm.ID, error)
}

// created is the answer of a create. Whether it is to be warm is asked for.
type created struct {
	VM        api.VM       `json:"vm"`
	Operation op.Operation `json:"operation"`
	warm      bool
}

func (c *created) operation() (op.Operation, vm.ID, error) {
	if c.VM.Warm != c.warm {
		return c.Operation, c.VM.ID, fault.New(fault.Internal, "warm is %v", c.VM.Warm).WithOp("measure a create", c.VM.Name).
			WithDetail(strings.Join(c.Operation.Warnings, "\n"))
	}
	return c.Operation, c.VM.ID, nil
}

// forked is the answer of a fork.
type forked struct {
	VMs       []api.VM     `json:"vms"`
	Operation op.Operation `json:"operation"`
}

func (f *forked) operation() (op.Operation, vm.ID, error) {
	if len(f.VMs) != 1 {
		return f.Operation, "", fault.New(fault.Internal, "%d VMs came of it", len(f.VMs)).WithOp("measure a fork", "")
	}
	return f.Operation, f.VMs[0].ID, nil
}

// outcomes is the answer of a verb that could have been told of several VMs.
type outcomes []struct {
	Operation *op.Operation `json:"operation"`
}

func (all *outcomes) operation() (op.Operation, vm.ID, error) {
	if len(*all) != 1 || (*all)[0].Operation == nil {
		return op.Operation{}, "", fault.New(fault.Internal, "the command tells of no operation").WithOp("measure a verb", "")
	}
	o := *(*all)[0].Operation
	return o, vm.ID(o.Subject), nil
}

// create makes a VM that stays.
func (r *run) create(ctx context.Context, name string, more ...string) (Verb, error) {
	args := append([]string{"vm", "create", name, "--image", r.Image, "--memory", r.Memory}, more...)
	return r.guest(ctx, name, &created{warm: len(more) == 0}, args...)
}

// guest carries out a verb that starts a guest.
func (r *run) guest(ctx context.Context, name string, said answer, args ...string) (Verb, error) {
	var before, now api.Status
	if err := banger(ctx, &before, "status"); err != nil {
		return Verb{}, err
	}
	v, err := verb(ctx, said, args...)
	if err != nil {
		return v, err
	}
	if r.ssh {
		begun := time.Now()
		if _, err := command(ctx, "vm", "ssh", name, "--", "true"); err != nil {
			return v, err
		}
		v.SSH = v.ended.Sub(v.Operation.Created) + time.Since(begun)
	}
	if err := banger(ctx, &now, "status"); err != nil {
		return v, err
	}
	_, id, err := said.operation()
	if err != nil {
		return v, err
	}
	at, err := commitsAt(now.Log, id)
	if err != nil {
		return v, err
	}
	v.CommitsBefore = at - before.Commits
	v.Hypervisor, err = lastStart(r.layout.FirecrackerLog(id))
	return v, err
}

// verb runs a command that carries out one operation.
func verb(ctx context.Context, said answer, args ...string) (Verb, error) {
	var before, after api.Status
	if err := banger(ctx, &before, "status"); err != nil {
		return Verb{}, err
	}
	daemon, err := proc.Identify(before.PID)
	if err != nil {
		return Verb{}, err
	}
	used, err := proc.CPUTime(daemon, "")
	if err != nil {
		return Verb{}, err
	}
	begun := time.Now()
	p, err := command(ctx, append(args, "-o", "json")...)
	if err != nil {
		return Verb{}, err
	}
	v := Verb{Command: time.Since(begun), CommandCPU: p.cpu, ended: time.Now()}
	now, err := proc.CPUTime(daemon, "")
	if err != nil {
		return v, err
	}
	v.DaemonCPU = now - used
	if err := json.Unmarshal(p.said, said); err != nil {
		return v, err
	}
	if v.Operation, _, err = said.operation(); err != nil {
		return v, err
	}
	err = banger(ctx, &after, "status")
	v.Commits, v.Children = after.Commits-before.Commits, after.Children-before.Children
	return v, err
}

// growth makes one more VM, and looks at the disk as its operation goes on.
func (r *run) growth(ctx context.Context, name string) (g Growth, err error) {
	memory, err := vm.ParseSize(r.Memory)
	if err != nil {
		return g, err
	}
	unix.Sync()
	free, _, err := block.Space(r.layout.State)
	if err != nil {
		return g, err
	}
	c := client.New(r.idle.Socket)
	defer c.CloseIdle()
	o, err := c.CreateVM(ctx, api.CreateVM{Name: name, Image: r.Image, Memory: memory})
	if err != nil {
		return g, err
	}
	seen := false
	var looking error
	last, err := c.Follow(ctx, o.ID, func(o op.Operation) {
		starts := slices.ContainsFunc(o.Stages, func(s op.Stage) bool { return s.Name == stageRestore || s.Name == stageHypervisor })
		if !starts || seen {
			return
		}
		seen = true
		now, _, err := block.Space(r.layout.State)
		g.BeforeStart, looking = free-now, err
	})
	if err == nil && last.Error != nil {
		err = last.Error
	}
	if err := errors.Join(err, looking); err != nil {
		return g, err
	}
	now, _, err := block.Space(r.layout.State)
	if err != nil {
		return g, err
	}
	g.UntilReady = free - now
	return g, remove(ctx, name)
}

// insist tries again where the emulator broke a guest, and tells. What the try has made is removed, but for VMs
// whose names begin with a word.
func (r *run) insist(ctx context.Context, but string, try func() error) error {
	for left := attempts - 1; ; left-- {
		err := try()
		if err == nil || left == 0 {
			return err
		}
		broken := errors.Is(err, errBroken)
		for _, logs := range []string{r.layout.Failed(), r.layout.VMs()} {
			broken = broken || scripts.BrokenGuest(logs) != ""
		}
		if !broken {
			return err
		}
		fmt.Fprintln(r.Log, "again:", errBroken)
		if err := errors.Join(os.RemoveAll(r.layout.Failed()), sweep(ctx, but)); err != nil {
			return err
		}
	}
}

// sweep removes all VMs, but for those whose names begin with a word, unless that is empty.
func sweep(ctx context.Context, but string) error {
	var all []api.VM
	if err := banger(ctx, &all, "vm", "list"); err != nil {
		return err
	}
	var gone []string
	for _, v := range all {
		if but == "" || !strings.HasPrefix(v.Name, but) {
			gone = append(gone, v.Name)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return remove(ctx, gone...)
}

// banger runs the real command and decodes what it prints, unless into is nil.
func banger(ctx context.Context, into any, args ...string) error {
	p, err := command(ctx, append(args, "-o", "json")...)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(p.said, into)
}

// printed is what a command printed, and the CPU time that it took.
type printed struct {
	said []byte
	cpu  time.Duration
}

func command(ctx context.Context, args ...string) (printed, error) {
	var out, said bytes.Buffer
	c := exec.CommandContext(ctx, "banger", args...)
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		return printed{}, fault.New(fault.Internal, "%w", err).WithOp("run", "banger "+strings.Join(args, " ")).WithDetail(said.String())
	}
	return printed{out.Bytes(), c.ProcessState.UserTime() + c.ProcessState.SystemTime()}, nil
}
