package bench

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/fault"
)

// listRuns is how often `banger vm list` is run.
const listRuns = 20

// daemonEnd bounds the wait for a daemon's end.
const daemonEnd = 10 * time.Second

// List returns the CPU time, user's and system's, of each of 20 runs of `<dir>/banger vm list`, against a
// daemon with a state directory of its own that it starts and ends. It needs no VM, and must run as root.
func List(ctx context.Context, dir string) (costs []time.Duration, err error) {
	home, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	command := func(args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, filepath.Join(dir, "banger"), args...)
		c.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_RUNTIME_DIR=" + home,
			"BANGER_STATE_DIR=" + filepath.Join(home, "state"), "BANGER_SOCKET=" + filepath.Join(home, "banger.sock"),
		}
		return c
	}
	pid, err := start(command("status", "-o", "json"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop(pid)) }()
	for range listRuns {
		c := command("vm", "list")
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fault.New(fault.Internal, "%w", err).WithOp("run", "banger vm list").WithDetail(string(out))
		}
		costs = append(costs, c.ProcessState.UserTime()+c.ProcessState.SystemTime())
	}
	return costs, nil
}

// start has the command start a daemon, and returns its pid.
func start(status *exec.Cmd) (int, error) {
	out, err := status.Output()
	if err != nil {
		var said string
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			said = string(e.Stderr)
		}
		return 0, fault.New(fault.Internal, "%w", err).WithOp("run", "banger status").WithDetail(said)
	}
	var st api.Status
	err = json.Unmarshal(out, &st)
	return st.PID, err
}

// stop ends a daemon. Its pid is held by a descriptor, so that no other process can be met.
func stop(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written to it
	if err := unix.PidfdSendSignal(fd, syscall.SIGTERM, nil, 0); err != nil {
		return err
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(daemonEnd.Milliseconds()))
	if n == 0 && err == nil {
		err = fault.New(fault.Timeout, "it does not end").WithOp("stop daemon", "")
	}
	return err
}
