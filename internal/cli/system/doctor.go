package system

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/cli/app"
	"banger/internal/cli/ssh"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/doctor"
	"banger/internal/fault"
)

func newDoctor(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this host can run VMs, and say what to fix",
		Long: `Check the way to the daemon, and ask the daemon about KVM, Firecracker, programs, disks and
devices. Each finding that is not ok comes with what to do. Fails if any check failed.`,
		Args: app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := examine(cmd.Context(), a)
			if err != nil {
				return err
			}
			if !a.Data() {
				report(a, checks)
			} else if err := a.Print(checks); err != nil {
				return err
			}
			return doctor.Verdict(checks)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

// examine asks the daemon for what only it can see, and looks itself at what only this user can. It
// starts no daemon: an absent one is a finding.
func examine(ctx context.Context, a *app.App) ([]api.Check, error) {
	c, socket, err := a.Existing()
	if err != nil {
		return nil, err
	}
	local := doctor.Report(ctx, localProbes(a.Build, c, socket))
	remote, err := c.Doctor(ctx)
	if err != nil {
		return local, nil //nolint:nilerr // the local report says that the daemon does not answer, and why
	}
	return append(remote, local...), nil
}

func localProbes(build buildinfo.Info, c *client.Client, socket string) doctor.Probes {
	return doctor.Probes{
		Programs: []doctor.Program{{Name: "ssh", Package: "openssh-client", Purpose: "log in to VMs", Optional: true}},
		LookPath: func(string) (string, error) { return ssh.Find() },
		Socket:   func(context.Context) (doctor.Socket, error) { return lookAt(socket) },
		Daemon: func(ctx context.Context) (doctor.Daemon, error) {
			theirs, err := c.Version(ctx)
			if err != nil {
				return doctor.Daemon{}, app.Unreachable(socket, err)
			}
			return doctor.Daemon{Build: theirs, Client: build}, nil
		},
	}
}

func lookAt(path string) (doctor.Socket, error) {
	s := doctor.Socket{Path: path}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fault.New(fault.Forbidden, "%w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return s, fault.New(fault.Internal, "%s has no owner", path)
	}
	s.Exists = true
	gid := int(st.Gid)
	groups, err := os.Getgroups()
	if err != nil {
		return s, fault.New(fault.Internal, "read this process's groups: %w", err)
	}
	s.UseSudo = gid == 0
	s.Member = os.Geteuid() == 0 || int(st.Uid) == os.Geteuid() || os.Getegid() == gid || slices.Contains(groups, gid)
	s.Group = strconv.Itoa(gid)
	if g, err := user.LookupGroupId(s.Group); err == nil {
		s.Group = g.Name
	}
	if me, err := user.Current(); err == nil {
		ids, err := me.GroupIds()
		s.Listed = err == nil && slices.Contains(ids, strconv.Itoa(gid))
	}
	return s, nil
}

func report(a *app.App, checks []api.Check) {
	p := a.IO.OutPalette()
	mark := map[api.CheckResult]term.Cell{
		api.CheckOK:     {Text: "ok", Style: p.Green},
		api.CheckWarn:   {Text: "warn", Style: p.Yellow},
		api.CheckFailed: {Text: "fail", Style: p.Red},
	}
	var rows [][]term.Cell
	for _, c := range checks {
		rows = append(rows, []term.Cell{mark[c.Result], {Text: c.Name, Style: p.Bold}, term.Text(c.Detail)})
		if c.Fix != "" {
			rows = append(rows, []term.Cell{term.Text(""), term.Text(""), {Text: "fix: " + c.Fix, Style: p.Cyan}})
		}
	}
	term.Rows(a.IO.Out, rows)
	if doctor.Verdict(checks) == nil {
		fmt.Fprintln(a.IO.Out, "\nThis host can run VMs.")
	}
}
