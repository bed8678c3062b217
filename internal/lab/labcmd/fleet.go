package labcmd

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/fault"
	"banger/internal/lab/bench"
)

// fleetMin is how many VMs say anything of growth.
const fleetMin = 20

func benchLifecycle() *cobra.Command {
	var asJSON bool
	var vms int
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "bench-lifecycle", Short: "Measure what the daemon costs as its VMs become a thousand", Args: cobra.NoArgs,
		Long: `Measure what the daemon costs as its VMs become a thousand: lists, creates, memory, and what is left
when all are deleted. Everything is real but Firecracker, which a stand-in replaces.

It fails when anything is over its limit. docs/performance.md tells what is measured, and how. It needs
root and /dev/kvm, not the lab, and works in network and mounts of its own.`,
		Example: "  banger-lab bench-lifecycle\n  banger-lab bench-lifecycle --vms 100 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if vms < fleetMin {
				return fault.New(fault.Invalid, "%d VMs say nothing of growth", vms).WithOp("measure a fleet", "").WithHint("give --vms at least %d", fleetMin)
			}
			m, err := apart(cmd, vms, timeout)
			if err != nil {
				return err
			}
			r := bench.SummarizeFleet(m)
			return tellReport(r, r.OK, asJSON)
		},
	}
	f := cmd.Flags()
	f.IntVar(&vms, "vms", 1000, "how many are made")
	f.BoolVar(&asJSON, "json", false, "print all that was measured, as JSON")
	f.DurationVar(&timeout, "timeout", 30*time.Minute, "end the run after this time")
	return cmd
}

// apart measures in a process with network and mounts of its own. What that leaves behind, were it
// killed, goes with them.
func apart(cmd *cobra.Command, vms int, timeout time.Duration) (m bench.Fleeted, err error) {
	out, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	file := filepath.Join(out, fileMeasured)
	c := exec.CommandContext(cmd.Context(), self, "measure-lifecycle", "--vms", strconv.Itoa(vms), "--timeout", timeout.String(), file)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := c.Run(); err != nil {
		if errors.Is(err, syscall.EPERM) {
			return m, fault.New(fault.Requirement, "it needs root").WithOp("measure a fleet", "").WithHint("run it with sudo")
		}
		if status, ok := errors.AsType[*exec.ExitError](err); ok {
			return m, exitError(status.ExitCode()) // it has said why
		}
		return m, err
	}
	text, err := os.ReadFile(filepath.Clean(file))
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	return m, err
}

func measureLifecycle() *cobra.Command {
	f := bench.Fleet{Log: os.Stderr}
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "measure-lifecycle FILE", Short: "In network and mounts of its own: measure a fleet", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			f.Programs = filepath.Dir(self)
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			m, err := f.Run(ctx)
			if err != nil {
				return err
			}
			return hand(args[0], m)
		},
	}
	cmd.Flags().IntVar(&f.VMs, "vms", 1000, "how many are made")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Minute, "end the run after this time")
	return cmd
}
