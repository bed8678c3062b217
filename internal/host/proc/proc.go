// Package proc watches and ends processes of the host, children or not, and keeps each hypervisor
// in a cgroup of its own.
//
// A pid alone names nothing: the kernel hands it out again. So a process is identified by pid, start
// time and boot, and is signalled and awaited through a pidfd that was checked against that identity
// after it was opened.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

// ErrGone is returned where a process is needed that runs no more.
var ErrGone = errors.New("the process is gone")

// Identify returns the identity of the process that has this pid now. ErrGone when there is none, or
// only a zombie.
func Identify(pid int) (vm.Process, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return vm.Process{}, fmt.Errorf("read boot id: %w", err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return vm.Process{}, ErrGone
	}
	if err != nil {
		return vm.Process{}, err
	}
	state, start, err := parseStat(stat)
	if err != nil {
		return vm.Process{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	if state == 'Z' || state == 'X' {
		return vm.Process{}, ErrGone
	}
	return vm.Process{PID: pid, StartTime: start, BootID: strings.TrimSpace(string(boot))}, nil
}

// parseStat finds the state (field 3) and the start time (field 22) in a stat line. Field 2 is the
// program's name in parentheses, which may itself hold spaces and parentheses: fields are counted
// from the last one.
func parseStat(line []byte) (state byte, start uint64, err error) {
	end := bytes.LastIndexByte(line, ')')
	fields := bytes.Fields(line[end+1:])
	if end < 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, fmt.Errorf("not a stat line: %.80q", line)
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return fields[0][0], start, err
}

// Alive reports whether it is this very process that runs, not another with its pid.
func Alive(p vm.Process) bool {
	now, err := Identify(p.PID)
	return err == nil && now == p
}

// open returns a pidfd of p, or ErrGone. The identity is checked after the pidfd is held, when the
// pid cannot change hands unnoticed any more.
func open(p vm.Process) (int, error) {
	if p.PID <= 0 {
		return -1, ErrGone
	}
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return -1, ErrGone
	}
	if err != nil {
		return -1, fmt.Errorf("open pidfd of %d: %w", p.PID, err)
	}
	if !Alive(p) {
		_ = unix.Close(fd)
		return -1, ErrGone
	}
	return fd, nil
}

// Wait returns nil when p has ended, or ctx's error. It works for any process, costs no thread, and
// reaps p if it is a child of ours.
func Wait(ctx context.Context, p vm.Process) error {
	fd, err := open(p)
	if errors.Is(err, ErrGone) {
		reap(p)
		return nil
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(0, 1)) })
	defer stop()
	// A pidfd becomes readable when its process ends; there is nothing to read from it.
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("wait for process %d: %w", p.PID, err)
	}
	reap(p)
	return nil
}

// reap collects p if it is an ended child of ours, so that it does not stay a zombie. The start time
// of a zombie is still told, so nobody else's child with the same pid is ever collected.
func reap(p vm.Process) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return
	}
	if state, start, err := parseStat(stat); err == nil && state == 'Z' && start == p.StartTime {
		_, _ = unix.Wait4(p.PID, nil, unix.WNOHANG, nil)
	}
}

// Signal sends sig to p, or returns ErrGone.
func Signal(p vm.Process, sig unix.Signal) error {
	fd, err := open(p)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// Kill ends p and returns when it has ended: SIGTERM, then SIGKILL when grace is over. Gone is
// success.
func Kill(ctx context.Context, p vm.Process, grace time.Duration) error {
	for _, step := range []struct {
		signal  unix.Signal
		patient time.Duration
	}{{unix.SIGTERM, grace}, {unix.SIGKILL, killed}} {
		if err := Signal(p, step.signal); err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, step.patient)
		err := Wait(wait, p)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("process %d does not end after SIGKILL: it hangs in the kernel", p.PID)
}

// killed is how long the kernel may take to end a process that was sent SIGKILL: tearing down a
// large guest's memory takes a while.
const killed = 30 * time.Second

// Threads returns the /proc directories of those threads of p whose names start with prefix.
func Threads(p vm.Process, prefix string) ([]string, error) {
	tasks := fmt.Sprintf("/proc/%d/task", p.PID)
	entries, err := os.ReadDir(tasks)
	if err != nil || !Alive(p) {
		return nil, ErrGone
	}
	var dirs []string
	for _, e := range entries {
		name, err := os.ReadFile(tasks + "/" + e.Name() + "/comm")
		if err == nil && strings.HasPrefix(string(name), prefix) {
			dirs = append(dirs, tasks+"/"+e.Name())
		}
	}
	return dirs, nil
}

// CPUTime sums what those threads of p have used whose names start with prefix. The kernel counts
// nanoseconds.
func CPUTime(p vm.Process, prefix string) (time.Duration, error) {
	threads, err := Threads(p, prefix)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, dir := range threads {
		stat, err := os.ReadFile(dir + "/schedstat")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		running, _, _ := strings.Cut(string(stat), " ")
		ns, err := strconv.ParseInt(running, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read schedstat of process %d: %w", p.PID, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// RSS is the memory that p holds now, in bytes.
func RSS(p vm.Process) (int64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID))
	if err != nil || !Alive(p) {
		return 0, ErrGone
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read statm of process %d: %.80q", p.PID, statm)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
