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
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/host/proc"
	"banger/internal/lab/scripts"
	"banger/internal/op"
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

// attempts is how often a boot is tried whose guest the emulator breaks.
const attempts = 3

// errBroken is a boot that says nothing about banger.
var errBroken = errors.New("the emulator broke the guest's kernel")

// Run creates and boots in turn. All that it makes it takes down again, but not when it fails: it is
// for throw-away hosts.
func (b Bench) Run(ctx context.Context) (Measured, error) {
	m := Measured{Image: b.Image}
	var idle api.Status
	if err := banger(ctx, &idle, "status"); err != nil {
		return m, err
	}
	floor, err := b.prepare(ctx, idle, &m.Weight)
	if err != nil {
		return m, err
	}
	for i := range b.Runs {
		r, err := b.round(ctx, idle, floor, i)
		if err != nil {
			return m, err
		}
		fmt.Fprintf(b.Log, "round %d of %d: create %.0f ms, bare boot %.0f ms, ratio %.3f\n", i+1, b.Runs,
			spread([]time.Duration{r.Create.ready()}).Median, spread([]time.Duration{r.Bare.Ready}).Median, float64(r.Create.ready())/float64(r.Bare.Ready))
		m.Rounds = append(m.Rounds, r)
	}
	if err := banger(ctx, nil, "vm", "delete", "--now", pattern); err != nil {
		return m, err
	}
	var after api.Status
	err = banger(ctx, &after, "status")
	m.Weight.Daemon = max(idle.RSS, after.RSS) // idle before its first VM and after its last
	return m, err
}

// prepare makes the pattern, weighs what is in it, and boots everything once unmeasured.
func (b Bench) prepare(ctx context.Context, st api.Status, w *Weight) (bare, error) {
	c, err := b.create(ctx, st, pattern)
	if err != nil {
		return bare{}, err
	}
	var ping api.Ping
	if err := banger(ctx, &ping, "vm", "ping", pattern); err != nil {
		return bare{}, err
	}
	if err := banger(ctx, nil, "vm", "kill", pattern); err != nil {
		return bare{}, err
	}
	layout := vm.Layout{State: st.StateDir}
	id := vm.ID(c.Operation.Subject)
	initrd, err := os.Stat(filepath.Join(layout.Jail(id), vm.FileInitrd))
	if err != nil {
		return bare{}, err
	}
	program, err := exec.LookPath("banger-agent")
	if err != nil {
		return bare{}, err
	}
	agent, err := os.Stat(program)
	if err != nil {
		return bare{}, err
	}
	w.Agent, w.Initrd, w.AgentBinary = ping.AgentRSS, initrd.Size(), agent.Size()
	floor, err := newBare(layout, st.Instance, id, b.Work)
	if err != nil {
		return bare{}, err
	}
	_, err = b.boot(ctx, floor)
	return floor, err
}

// round measures one of each. Which comes first alternates, so that a machine that gets slower or
// faster favours neither.
func (b Bench) round(ctx context.Context, st api.Status, floor bare, i int) (Round, error) {
	var r Round
	create := func() (err error) {
		name := "bench-" + strconv.Itoa(i)
		if r.Create, err = b.create(ctx, st, name); err != nil {
			return err
		}
		return banger(ctx, nil, "vm", "delete", "--now", "--force", name)
	}
	boot := func() (err error) {
		r.Bare, err = b.boot(ctx, floor)
		return err
	}
	order := []func() error{create, boot}
	if i%2 == 1 {
		order = []func() error{boot, create}
	}
	for _, measure := range order {
		if err := measure(); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (b Bench) boot(ctx context.Context, floor bare) (took Bare, err error) {
	err = b.insist(func() (err error) {
		unix.Sync() // nobody pays for what was written before
		took, err = floor.boot(ctx)
		return err
	})
	return took, err
}

// create makes a VM that stays.
func (b Bench) create(ctx context.Context, st api.Status, name string) (c Create, err error) {
	err = b.insist(func() (err error) {
		unix.Sync()
		c, err = b.attempt(ctx, name)
		failed := vm.Layout{State: st.StateDir}.Failed()
		if err != nil && scripts.BrokenGuest(failed) != "" {
			return errors.Join(errBroken, os.RemoveAll(failed))
		}
		return err
	})
	return c, err
}

func (b Bench) attempt(ctx context.Context, name string) (Create, error) {
	var before, after api.Status
	if err := banger(ctx, &before, "status"); err != nil {
		return Create{}, err
	}
	var made struct {
		VM        api.VM       `json:"vm"`
		Operation op.Operation `json:"operation"`
	}
	daemon, err := proc.Identify(before.PID)
	if err != nil {
		return Create{}, err
	}
	used, err := proc.CPUTime(daemon, "")
	if err != nil {
		return Create{}, err
	}
	begun := time.Now()
	cpu, err := run(ctx, &made, "vm", "create", name, "--image", b.Image, "--memory", b.Memory)
	if err != nil {
		return Create{}, err
	}
	c := Create{Command: time.Since(begun), Operation: made.Operation, CommandCPU: cpu}
	now, err := proc.CPUTime(daemon, "")
	if err != nil {
		return Create{}, err
	}
	c.DaemonCPU = now - used
	if err := banger(ctx, &after, "status"); err != nil {
		return Create{}, err
	}
	c.Commits, c.Children = after.Commits-before.Commits, after.Children-before.Children
	at, err := commitsAt(after.Log, made.VM.ID)
	if err != nil {
		return Create{}, err
	}
	c.CommitsBefore = at - before.Commits
	c.Hypervisor, err = firstWord(made.VM.Logs.Firecracker)
	return c, err
}

// insist tries again where the emulator broke a guest, and tells.
func (b Bench) insist(try func() error) error {
	for left := attempts - 1; ; left-- {
		err := try()
		if !errors.Is(err, errBroken) || left == 0 {
			return err
		}
		fmt.Fprintln(b.Log, "again:", err)
	}
}

// banger runs the real command and decodes what it prints, unless into is nil.
func banger(ctx context.Context, into any, args ...string) error {
	_, err := run(ctx, into, args...)
	return err
}

// run does that, and returns the CPU time that the command took.
func run(ctx context.Context, into any, args ...string) (time.Duration, error) {
	var out, said bytes.Buffer
	c := exec.CommandContext(ctx, "banger", append(args, "-o", "json")...)
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		return 0, fault.New(fault.Internal, "%w", err).WithOp("run", "banger "+strings.Join(args, " ")).WithDetail(said.String())
	}
	cpu := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	if into == nil {
		return cpu, nil
	}
	return cpu, json.Unmarshal(out.Bytes(), into)
}
