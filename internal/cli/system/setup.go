package system

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/fault"
	"banger/internal/setup"
)

type setupOptions struct{ dryRun, undo bool }

func newSetup(a *app.App) *cobra.Command {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Install banger on this host: programs, group, systemd units",
		Long: `Install banger, bangerd and banger-agent below /usr/local, the group whose members may use them
without sudo, and systemd's units, which start the daemon when it is first asked for. You are added to
the group. What is in place already is left alone, so it may be run again, as after a new build.

With --undo all of that is removed again. VMs, images and configuration always stay.`,
		Example: "  sudo bin/banger setup\n  banger setup --dry-run\n  sudo banger setup --undo",
		Args:    app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runSetup(cmd.Context(), a, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	cmd.Flags().BoolVar(&o.undo, "undo", false, "remove what setup installed")
	return cmd
}

func runSetup(ctx context.Context, a *app.App, o setupOptions) error {
	self, err := os.Executable()
	if err != nil {
		return fault.New(fault.Internal, "find this program: %w", err)
	}
	if os.Geteuid() != 0 && !o.dryRun {
		again := self + " setup"
		if o.undo {
			again += " --undo"
		}
		return fault.New(fault.Forbidden, "it needs root").WithOp("set up this host", "").WithHint("run `sudo %s`, or see what it would do with --dry-run", again)
	}
	s := setup.Setup{Root: "/", Programs: filepath.Dir(self), User: os.Getenv("SUDO_USER"), Run: setup.Run}
	plan := s.Install
	if o.undo {
		if err := nothingRuns(ctx, a, o.dryRun); err != nil {
			return err
		}
		plan = s.Undo
	}
	steps, err := plan(ctx)
	if err != nil {
		return err
	}
	changed := 0
	for i := range steps {
		step := &steps[i]
		if step.Done {
			continue
		}
		changed++
		if !o.dryRun {
			if err := step.Act(ctx); err != nil {
				return fault.From(err).InOp("set up this host", step.Do)
			}
		}
		if !a.Data() {
			fmt.Fprintln(a.IO.Out, term.Escape(step.Do))
		}
	}
	if a.Data() {
		return a.Print(steps)
	}
	conclude(a, s, o, changed)
	return nil
}

// nothingRuns refuses to take the daemon away from under VMs that run, and has it take back what it changed of the network.
func nothingRuns(ctx context.Context, a *app.App, dryRun bool) error {
	c, _, err := a.Existing()
	if err != nil {
		return err
	}
	status, err := c.Status(ctx)
	if err != nil {
		return nil //nolint:nilerr // no daemon: then none of its VMs can be stopped by it either
	}
	if n := status.VMs["running"]; n > 0 {
		run := "1 VM runs"
		if n > 1 {
			run = strconv.Itoa(n) + " VMs run"
		}
		return fault.New(fault.InUse, "%s", run).WithOp("remove banger", "").WithHint("stop them first: `banger vm list`, `banger vm stop NAME...`")
	}
	lines, err := c.UninstallNetwork(ctx, api.UninstallNetwork{DryRun: dryRun})
	if err != nil && !fault.Is(err, fault.NotFound) { // a daemon of before knows of none
		return err
	}
	for _, line := range lines {
		if !a.Data() {
			fmt.Fprintln(a.IO.Out, term.Escape("take away "+line))
		}
	}
	return nil
}

func conclude(a *app.App, s setup.Setup, o setupOptions, changed int) {
	switch {
	case changed == 0:
		a.Hint("nothing to do: all of it is so already")
	case o.dryRun:
		a.Hint("nothing was done: leave out --dry-run to do it")
		return
	}
	switch {
	case o.undo:
		a.Hint("VMs, images and configuration stay, in /var/lib/banger and /etc/banger")
	case !s.Systemd():
		a.Hint("this host has no systemd: have its init start /%s/bangerd as root, or use banger as root, which starts it", setup.BinDir)
	case s.User != "" && s.User != "root" && changed > 0:
		a.Hint("%s may use banger without sudo after the next login, or at once in a shell of `newgrp %s`", s.User, setup.Group)
		fallthrough
	default:
		a.Hint("next: banger doctor")
	}
}
