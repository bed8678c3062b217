package scripts

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"banger/internal/lab/hoststate"
	"banger/internal/vm"
)

// command is a word that scripts have beside testscript's own.
type command = func(ts *testscript.TestScript, neg bool, args []string)

// Bounds of waiting. They are generous: the lab's clock runs twenty times slower than silicon.
const (
	waitDefault = 3 * time.Minute
	waitEnd     = 20 * time.Second
	waitSettle  = 5 * time.Second
	waitStep    = 500 * time.Millisecond
)

func commands(ctx context.Context, host Host) map[string]command {
	h := &hosts{ctx: ctx, host: host, seen: map[string]hoststate.State{}}
	return map[string]command{
		"exits":         exits,
		"wait-for":      func(ts *testscript.TestScript, neg bool, args []string) { waitFor(ctx, ts, neg, args) },
		"kill-pid":      func(ts *testscript.TestScript, neg bool, args []string) { killPID(ctx, ts, neg, args) },
		"wait-json":     func(ts *testscript.TestScript, neg bool, args []string) { waitJSON(ctx, ts, neg, args) },
		"json":          jsonIs,
		"json-env":      jsonEnv,
		"snapshot-host": h.snapshot,
		"same-host":     h.same,
		"crash-points":  h.crashPoints,
		"fake-internet": fakeInternet(ctx),
	}
}

// waitFor runs a command until it succeeds, or with ! until it fails:
//
//	wait-for [-timeout 30s] banger vm ping dev
func waitFor(ctx context.Context, ts *testscript.TestScript, neg bool, args []string) {
	timeout := waitDefault
	if len(args) > 1 && args[0] == "-timeout" {
		d, err := time.ParseDuration(args[1])
		ts.Check(err)
		timeout, args = d, args[2:]
	}
	if len(args) == 0 {
		ts.Fatalf("usage: wait-for [-timeout DURATION] COMMAND [ARG...]")
	}
	var last error
	err := until(ctx, timeout, func() bool {
		last = ts.Exec(args[0], args[1:]...)
		return (last == nil) != neg
	})
	switch {
	case err == nil:
	case neg:
		ts.Fatalf("it still succeeds after %s", timeout)
	default:
		ts.Fatalf("it still fails after %s: %v", timeout, last)
	}
}

// killPID ends a process and waits until it is gone: kill-pid [-TERM] PID.
func killPID(ctx context.Context, ts *testscript.TestScript, neg bool, args []string) {
	sig := syscall.SIGKILL
	if len(args) == 2 && strings.HasPrefix(args[0], "-") {
		if sig = unix.SignalNum("SIG" + args[0][1:]); sig == 0 {
			ts.Fatalf("there is no signal %s", args[0][1:])
		}
		args = args[1:]
	}
	if len(args) != 1 || neg {
		ts.Fatalf("usage: kill-pid [-SIGNAL] PID")
	}
	pid, err := strconv.Atoi(args[0])
	if err != nil || pid <= 1 {
		ts.Fatalf("%q is no pid", args[0])
	}
	ts.Check(unix.Kill(pid, sig))
	if err := until(ctx, waitEnd, func() bool { return !alive(pid) }); err != nil {
		ts.Fatalf("process %d still runs %s after signal %d", pid, waitEnd, sig)
	}
}

// hosts keeps the states that one script gave names.
type hosts struct {
	ctx  context.Context // testscript's commands have none of their own
	host Host
	seen map[string]hoststate.State
}

// snapshot keeps the host's state: snapshot-host NAME.
func (h *hosts) snapshot(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: snapshot-host NAME")
	}
	h.seen[args[0]] = h.now(ts)
}

// now looks at the VMs' directories too, where each has its sockets.
func (h *hosts) now(ts *testscript.TestScript) hoststate.State {
	state, err := h.host.State(h.ctx, vm.Layout{State: ts.Getenv("BANGER_STATE_DIR")}.VMs())
	ts.Check(err)
	return state
}

// same fails unless the host is, or within a moment becomes, as it was: same-host NAME. What is
// torn down in the background may take that moment.
func (h *hosts) same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] same-host NAME")
	}
	before, ok := h.seen[args[0]]
	if !ok {
		ts.Fatalf("there is no snapshot %q", args[0])
	}
	compare := func() []string { return hoststate.Diff(before, h.now(ts)) }
	if neg {
		if len(compare()) == 0 {
			ts.Fatalf("the host is as it was at %q", args[0])
		}
		return
	}
	var diff []string
	if err := until(h.ctx, waitEnd, func() bool { diff = compare(); return len(diff) == 0 }); err != nil {
		ts.Fatalf("the host is not as it was at %q:\n%s", args[0], strings.Join(diff, "\n"))
	}
}

var errTooLong = errors.New("it took too long")

// until asks again and again until the answer is yes.
func until(ctx context.Context, timeout time.Duration, yes func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTooLong)
	defer cancel()
	tick := time.NewTicker(waitStep)
	defer tick.Stop()
	for !yes() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
