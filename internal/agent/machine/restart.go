package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How long each part of going down may take.
const (
	askBudget   = 20 * time.Second // for a program that asks init
	initBudget  = 2 * time.Minute  // for an init that we know to have agreed; the host's patience ends before
	strayBudget = 10 * time.Second // for whatever else runs as PID 1
	termBudget  = 5 * time.Second  // for processes to heed SIGTERM
	poll        = 100 * time.Millisecond
)

// A plan says how an init is asked to reboot: by the first program that is there and succeeds, else
// by a signal, else by nothing, which leaves the reset to us.
type plan struct {
	programs [][]string
	signal   unix.Signal
	budget   time.Duration
}

// planFor knows the inits by PID 1's executable and arguments.
func planFor(exe string, argv []string) plan {
	base := strings.TrimSuffix(filepath.Base(exe), " (deleted)") // one that was upgraded since it started
	known := func(signal unix.Signal, programs ...[]string) plan {
		return plan{programs: programs, signal: signal, budget: initBudget}
	}
	switch {
	case base == "systemd":
		return known(sigRTMin+5, []string{"systemctl", "reboot"}) // systemd(1), signals
	case base == "busybox" && busyboxInit(argv):
		return known(unix.SIGTERM) // SIGUSR1 halts, SIGUSR2 powers off, SIGTERM reboots
	case base == "runit" || base == "runit-init":
		return known(0, []string{"runit-init", "6"}, []string{"init", "6"}, []string{"reboot"})
	case base == "openrc-init":
		return known(0, []string{"openrc-shutdown", "-r", "now"}, []string{"reboot"})
	case base == "init":
		return known(0, []string{"shutdown", "-r", "now"}, []string{"reboot"})
	default:
		return plan{programs: [][]string{{"reboot"}}, budget: strayBudget}
	}
}

// busyboxInit tells busybox's init from its shell, which runs many a hand-made init.
func busyboxInit(argv []string) bool {
	if len(argv) > 1 && filepath.Base(argv[0]) == "busybox" {
		argv = argv[1:]
	}
	applet := filepath.Base(argv[0])
	return applet == "init" || applet == "linuxrc"
}

// sigRTMin is SIGRTMIN as the C libraries count: the first two are theirs.
const sigRTMin = unix.Signal(34)

// Restart has init end everything in order and reset the machine. It resets rather than powers off
// because a reset is what ends Firecracker on x86.
func (m *Machine) Restart() {
	exe, _ := os.Readlink("/proc/1/exe")
	cmdline, _ := os.ReadFile("/proc/1/cmdline")
	p := planFor(exe, strings.Split(string(cmdline), "\x00"))
	if err := p.ask(); err != nil {
		m.Log.Error("init does not reboot: doing it", "init", exe, "error", err)
		m.force()
		return
	}
	time.AfterFunc(p.budget, m.force)
}

func (p plan) ask() error {
	errs := []error{errors.New("it cannot be asked")}
	for _, argv := range p.programs {
		err := run(argv)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if p.signal != 0 {
		return unix.Kill(1, p.signal)
	}
	return errors.Join(errs...)
}

func run(argv []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), askBudget)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w %s", strings.Join(argv, " "), err, bytes.TrimSpace(out[:min(len(out), 200)]))
	}
	return nil
}

// force resets the machine without init, losing no file that was written.
func (m *Machine) force() {
	_ = unix.Kill(-1, unix.SIGTERM) // fails only when there is nobody else
	for end := time.Now().Add(termBudget); anyoneLeft() && time.Now().Before(end); {
		<-time.After(poll)
	}
	_ = unix.Kill(-1, unix.SIGKILL)
	Reset()
}

// anyoneLeft reports whether a process lives besides PID 1, ourselves and the kernel's threads.
func anyoneLeft() bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() || pid == os.Getppid() {
			return false
		}
		cmdline, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		return err == nil && len(cmdline) > 0 // threads of the kernel have none
	})
}

// Reset writes everything to the disks and resets the machine. It returns only when the kernel
// refuses.
func Reset() {
	unix.Sync()
	mounts, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for _, l := range slices.Backward(lines) {
		if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(f[0], "/dev/") {
			// It may be in use still; it has been synced, and its journal does the rest.
			_ = unix.Mount("", f[1], "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
