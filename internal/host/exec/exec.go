// Package exec runs the few programs that banger needs of its host, and is the one place where
// the daemon starts children that it waits for.
//
// Every child has a process group of its own, ends with its context, and dies when the daemon
// does: what a child leaves half done is swept at the next start, what it still does after that
// would not be.
package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"banger/internal/fault"
)

// Bounds of what is kept of a child's output. The newest bytes win.
const (
	maxOutput = 1 << 20
	maxTail   = 4 << 10
	maxLine   = 4 << 10
)

// grace is how long a child may take to clean up after SIGTERM, before SIGKILL.
const grace = 5 * time.Second

// Command is one program to run.
type Command struct {
	Argv   []string     // program and arguments; the program is looked up as LookPath does
	Dir    string       // working directory; empty is the daemon's
	Env    []string     // KEY=VALUE, added to the daemon's environment
	Stdin  io.Reader    // nil is /dev/null
	OnLine func(string) // called in turn for each line of either stream, without control characters; may be nil
}

// Result is what a program wrote: of each stream the last MiB.
type Result struct {
	Stdout, Stderr []byte
}

// Error is a program that could not be run or did not succeed.
type Error struct {
	Argv   []string
	Status int    // exit status; -1 when it was ended by a signal or never ran
	Stderr string // the last 4 KiB
	Err    error  // *exec.ExitError, the context's cause, or why it could not be started
}

// Error renders the program, what became of it, and the last thing it said, on one line.
func (e *Error) Error() string {
	s := e.Argv[0] + ": " + e.Err.Error()
	if last := lastLine(e.Stderr); last != "" {
		s += ": " + last
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Runner runs programs. Its zero value is ready.
type Runner struct{}

// Run runs c to its end. It fails with fault.Requirement when the program is not installed, and
// with *Error when it does not exit with status 0. When ctx ends, the program's whole process group
// gets SIGTERM, 5 s later SIGKILL, and the *Error wraps the context's cause.
func (Runner) Run(ctx context.Context, c Command) (Result, error) {
	path, err := LookPath(c.Argv[0])
	if err != nil {
		return Result{}, err
	}
	// The kernel ties Pdeathsig to the thread that forked, so that thread must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	lines := &lineWriter{emit: c.OnLine}
	stdout, stderr := tailWriter{max: maxOutput}, tailWriter{max: maxOutput}
	cmd := exec.CommandContext(ctx, path, c.Argv[1:]...)
	cmd.Args[0] = c.Argv[0]
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin = c.Stdin
	cmd.Stdout = io.MultiWriter(&stdout, lines.stream())
	cmd.Stderr = io.MultiWriter(&stderr, lines.stream())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = grace + time.Second
	var killer *time.Timer
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		killer = time.AfterFunc(grace, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
		return syscall.Kill(group, syscall.SIGTERM)
	}

	err = cmd.Run()
	if killer != nil && killer.Stop() {
		// The program is gone before its grace was; what it started goes too.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	lines.flush()
	result := Result{Stdout: stdout.bytes(), Stderr: stderr.bytes()}
	if err == nil {
		return result, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	status := -1
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status = exit.ExitCode()
	}
	tail := result.Stderr
	if len(tail) > maxTail {
		tail = tail[len(tail)-maxTail:]
	}
	return result, &Error{Argv: c.Argv, Status: status, Stderr: string(tail), Err: err}
}

// LookPath finds a program in PATH and then in the administrator's directories, which a daemon's or
// a user's PATH may lack. A program that is not there is fault.Requirement, with the package to install.
func LookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	if !strings.Contains(program, "/") {
		for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
			if path, err := exec.LookPath(dir + "/" + program); err == nil {
				return path, nil
			}
		}
	}
	return "", missing(program, err)
}

func missing(program string, cause error) error {
	e := &fault.Error{Code: fault.Requirement, Op: "run", Subject: program, Msg: "the program is not installed", Err: cause}
	if strings.Contains(program, "/") {
		e.Msg = fmt.Sprintf("the program cannot be executed: %v", errors.Unwrap(cause))
		return e.WithHint("check the path in the configuration, and that the file is there and executable")
	}
	if pkg := Package(program); pkg != "" {
		return e.WithHint("install it: `sudo apt-get install %s`, or your distribution's package that has it", pkg)
	}
	return e.WithHint("install it, or add its directory to PATH")
}

// Package names the Debian package that has a program; "" when it is none that banger knows.
func Package(program string) string {
	switch program {
	case "mke2fs", "resize2fs", "e2fsck", "debugfs", "tune2fs", "dumpe2fs":
		return "e2fsprogs"
	case "ssh", "ssh-keygen":
		return "openssh-client"
	case "xz":
		return "xz-utils"
	case "depmod", "modprobe", "modinfo":
		return "kmod"
	case "ip":
		return "iproute2"
	case "nft":
		return "nftables"
	case "qemu-system-x86_64":
		return "qemu-system-x86"
	case "mmdebstrap", "dmsetup", "git", "tar", "zstd":
		return program
	default:
		return ""
	}
}
