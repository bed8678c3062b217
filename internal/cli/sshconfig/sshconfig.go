// Package sshconfig holds the commands `banger ssh-config …`, and keeps what they installed true.
package sshconfig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/adrg/xdg"
	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/ssh"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/vm"
)

// New returns `banger ssh-config`.
func New(a *app.App) *cobra.Command {
	cmd := app.Group("ssh-config", "Reach VMs by ssh, scp, rsync and editors as NAME.vm", newInstall(a), newRemove(a), newPrint(a))
	cmd.Long = `Have your ssh, and all that uses it, reach every VM as NAME.vm: no flags, no questions, no route to the guest.
It is the same way in as ` + "`banger vm ssh`" + ` has: the guest's agent answers, and the host key is known.`
	return cmd
}

func newInstall(a *app.App) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Have ~/.ssh/config include a file with your VMs",
		Long: `Write a file with one block that serves every VM, and put a line at the top of ~/.ssh/config that includes it.
Nothing else of ~/.ssh/config changes. VMs are listed by name in the file too, for editors that offer hosts to choose from;
commands that make, rename or delete VMs keep that list.`,
		Example: `  banger ssh-config install
  ssh dev.vm
  rsync -a src/ dev.vm:src/`,
		Args: app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return install(cmd.Context(), a, dryRun)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	return cmd
}

func newRemove(a *app.App) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:     "remove",
		Short:   "Leave ~/.ssh/config as it was before",
		Long:    "Remove the line from ~/.ssh/config and the file that it includes. What install had to make for them is removed too.",
		Example: "  banger ssh-config remove --dry-run\n  banger ssh-config remove",
		Args:    app.Args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			return remove(a, dryRun)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	return cmd
}

func newPrint(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "print",
		Short: "Print what install would write, and write nothing",
		Long:  "Print the file that install would write, for an ssh_config that you keep yourself. The key that it names is made by the first create.",
		Example: `  banger ssh-config print
  banger ssh-config print >> dotfiles/ssh_config`,
		Args: app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, _, err := render(cmd.Context(), a)
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(printed{app.SSHConfig(), text})
			}
			fmt.Fprint(a.IO.Out, text)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

// printed is what print prints as JSON.
type printed struct {
	Path string `json:"path"` // where install would put it
	Text string `json:"text"`
}

// render is the file for the VMs there are.
func render(ctx context.Context, a *app.App) (text string, names []string, err error) {
	key, _, err := a.KeyPath()
	if err != nil {
		return "", nil, err
	}
	socket, err := a.SocketPath()
	if err != nil {
		return "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", nil, fault.New(fault.Internal, "find this program: %w", err)
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return "", nil, err
	}
	if names, err = namesOf(ctx, c); err != nil {
		return "", nil, err
	}
	text, err = ssh.Config{Program: self, Socket: socket, Key: key}.Text(names)
	return text, names, err
}

func namesOf(ctx context.Context, c *client.Client) ([]string, error) {
	vms, err := c.BriefVMs(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, v := range vms {
		if vm.CheckName(v.Name) == nil { // ssh does what the file says: no daemon is to say it
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// step is one change, as both commands print them.
type step struct {
	Do   string `json:"do"`
	Done bool   `json:"done"` // it was so already
	act  func() error
}

func install(ctx context.Context, a *app.App, dryRun bool) error {
	if err := ssh.CheckVersion(ctx); err != nil {
		return err
	}
	text, names, err := render(ctx, a)
	if err != nil {
		return err
	}
	was, err := ssh.ReadUserConfig(xdg.Home)
	if err != nil {
		return err
	}
	path := app.SSHConfig()
	is, err := was.Including(path)
	if err != nil {
		return err
	}
	now, _ := os.ReadFile(path) // one that cannot be read is written anew
	steps := []step{
		{"write " + path, string(now) == text, func() error {
			if _, err := a.Key(); err != nil {
				return err
			}
			return ssh.WriteConfig(path, text)
		}},
		{"include it at the top of " + is.Path, is.Same(was), is.Write},
	}
	if err := take(a, steps, dryRun); err != nil || dryRun {
		return err
	}
	example := "NAME"
	if len(names) > 0 {
		example = names[0]
	}
	a.Hint("next: ssh %s%s", example, ssh.Suffix)
	return nil
}

func remove(a *app.App, dryRun bool) error {
	was, err := ssh.ReadUserConfig(xdg.Home)
	if err != nil {
		return err
	}
	is, path := was.Without(), app.SSHConfig()
	_, absent := os.Lstat(path)
	return take(a, []step{
		{"include " + path + " no more in " + is.Path, is.Same(was), is.Write},
		{"remove " + path, absent != nil, func() error {
			if err := os.Remove(path); err != nil {
				return fault.New(fault.Forbidden, "%w", err).WithOp("remove", path).WithHint("check that %s can be written", filepath.Dir(path))
			}
			return nil
		}},
	}, dryRun)
}

// take does what is not done yet, and tells.
func take(a *app.App, steps []step, dryRun bool) error {
	changed := 0
	for _, s := range steps {
		if s.Done {
			continue
		}
		changed++
		if !dryRun {
			if err := s.act(); err != nil {
				return err
			}
		}
		if !a.Data() {
			fmt.Fprintln(a.IO.Out, term.Escape(s.Do))
		}
	}
	switch {
	case a.Data():
		return a.Print(steps)
	case changed == 0:
		a.Hint("nothing to do: all of it is so already")
	case dryRun:
		a.Hint("nothing was done: leave out --dry-run to do it")
	}
	return nil
}

// Login is the command that logs in to a VM.
func Login(a *app.App, name string) string {
	if socket, err := a.SocketPath(); err == nil && ssh.Serves(app.SSHConfig(), socket) {
		return "ssh " + name + ssh.Suffix
	}
	return "banger vm ssh " + name
}

// keepBudget bounds how long a command's end may wait for the list.
const keepBudget = 2 * time.Second

// Keep lists the VMs there are in the file that is installed, once something may have changed them. It is the end of a command
// that has done its work, and fails nothing.
func Keep(ctx context.Context, a *app.App) {
	if !a.Ended() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, keepBudget)
	defer cancel()
	c, socket, err := a.Existing()
	if err == nil {
		err = ssh.Relist(ctx, app.SSHConfig(), socket, func() ([]string, error) { return namesOf(ctx, c) })
	}
	if err != nil && ctx.Err() == nil {
		a.Hint("%s does not list the VMs there are now (ssh reaches them all the same): %v", app.SSHConfig(), err)
	}
}
