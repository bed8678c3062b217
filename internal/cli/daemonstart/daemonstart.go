// Package daemonstart starts bangerd from a root user's command, where no service manager does.
package daemonstart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"banger/internal/fault"
)

const (
	program      = "bangerd"
	wait         = 30 * time.Second
	pollInterval = 20 * time.Millisecond
	// grace is for another command that started its own bangerd at the same moment: ours finds the
	// state directory locked and ends, and theirs is about to listen.
	grace     = 3 * time.Second
	tailBytes = 4 << 10
	tailLines = 10
)

// Start runs bangerd detached, listening at socket, its output appended to the file at logPath, and
// returns once ready returns nil. A daemon that ends or stays silent is an error that shows what it said.
func Start(ctx context.Context, socket, logPath string, ready func(context.Context) error) error {
	path, err := find()
	if err != nil {
		return err
	}
	failed := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Unavailable, format, args...).WithOp("start daemon", path)
	}
	if err := os.MkdirAll(filepath.Dir(logPath), 0o700); err != nil {
		return failed("%w", err)
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return failed("%w", err)
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return failed("%w", err)
	}

	cmd := exec.CommandContext(context.WithoutCancel(ctx), path) // outlives this command
	cmd.Env = append(os.Environ(), "BANGER_SOCKET="+socket)      // a flag or the user's file may have named it
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return failed("%w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	var giveUp <-chan time.Time
	var death error
	for {
		if ready(ctx) == nil {
			return nil
		}
		select {
		case <-poll.C:
		case err := <-ended:
			death, giveUp = errors.Join(errors.New("it ended"), err), time.After(grace)
		case <-giveUp:
			return failed("%s", strings.ReplaceAll(death.Error(), "\n", ": ")).WithDetail(tail(log, before)).WithLogs(logPath).
				WithHint("its last lines tell why; `banger doctor` checks this host")
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return failed("it does not answer after %s", wait).WithDetail(tail(log, before)).WithLogs(logPath).
				WithHint("its last lines may tell why")
		}
	}
}

// Become runs bangerd with these arguments in place of this program. It returns only when it fails.
func Become(args ...string) error {
	path, err := find()
	if err != nil {
		return err
	}
	return fault.System(syscall.Exec(path, append([]string{program}, args...), os.Environ()), "execute", path)
}

// find looks beside this executable first, so that a build is never served by another one.
func find() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), program)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fault.New(fault.Requirement, "it is neither beside this command nor on PATH").WithOp("start daemon", program).
			WithHint("install bangerd next to banger")
	}
	return path, nil
}

// tail returns the last lines written after offset.
func tail(f *os.File, offset int64) string {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	offset = max(offset, end-tailBytes)
	buf := make([]byte, end-offset)
	n, err := f.ReadAt(buf, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	lines := bytes.Split(bytes.TrimSpace(buf[:n]), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-tailLines):], []byte("\n")))
}
