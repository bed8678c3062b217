package vm

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/exit"
	"banger/internal/cli/ssh"
	"banger/internal/cli/userkey"
	"banger/internal/client"
	"banger/internal/fault"
	nouns "banger/internal/vm"
)

type sshOptions struct {
	tty     bool
	options []string
}

func newSSH(a *app.App) *cobra.Command {
	var o sshOptions
	cmd := &cobra.Command{
		Use:   "ssh NAME [-- COMMAND...]",
		Short: "Log in to a VM, or run a command in it",
		Long: `Run the system's ssh as root in the guest. It is the guest's agent that answers, over the VM's
own socket: neither a route to the guest nor an SSH server in it is needed, and the guest must show the
host key that the daemon gave it, so nothing is asked. The exit status is the command's, 128 and the
number of a signal that ended it; 255 is ssh's own failure.

One argument after -- is a command line for the guest's shell; several arrive as they are.
Your ssh_config is not read; what you need of it can be given with --ssh-option.`,
		Example: `  banger vm ssh dev
  banger vm ssh dev -- uname -a
  banger vm ssh dev -- 'cd repo && make test'
  banger vm ssh -t dev -- htop
  banger vm ssh --ssh-option ForwardAgent=yes dev`,
		Args:        sshArgs,
		Annotations: app.Raw(),
		RunE: run(func(ctx context.Context, args []string) error {
			return sshInto(ctx, a, args[0], args[1:], o)
		}),
		ValidArgsFunction: a.Complete(1, app.VMs),
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fault.From(app.FlagError(cmd, err)).WithHint("a command for the guest goes after --, such as `banger vm ssh dev -- uname -a`")
	})
	f := cmd.Flags()
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	f.StringArrayVar(&o.options, "ssh-option", nil, "an option for ssh, `KEY=VALUE` as in ssh_config; may be repeated")
	return cmd
}

// sshArgs wants the guest's command behind --, so that no flag of it can be taken for one of ours.
func sshArgs(cmd *cobra.Command, args []string) error {
	if err := app.Args(1, -1)(cmd, args); err != nil {
		return err
	}
	if dash := cmd.ArgsLenAtDash(); len(args) > 1 && dash != 1 {
		return fault.New(fault.Invalid, "the guest's command goes after --").WithOp(cmd.CommandPath(), "").
			WithHint("such as `%s %s -- %s`", cmd.CommandPath(), args[0], args[1])
	}
	return nil
}

func sshInto(ctx context.Context, a *app.App, name string, command []string, o sshOptions) error {
	key, err := a.Key()
	if err != nil {
		return err
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	v, err := c.VM(ctx, name)
	if err != nil {
		return err
	}
	if err := reachable(v, key); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fault.New(fault.Internal, "find this program: %w", err)
	}
	socket, err := a.SocketPath()
	if err != nil {
		return err
	}
	err = ssh.Session{
		VM: v.ID, HostKey: v.HostKey, Key: key.Path, KnownHosts: app.KnownHosts(string(v.ID)),
		Proxy: []string{self, "--socket", socket, "internal", "ssh-proxy", string(v.ID)},
		TTY:   o.tty, Options: o.options, Command: command,
	}.Run(ctx, a.IO)
	parting(ctx, a, c, v, len(command) == 0 && a.IO.InTTY, exit.Of(err) == sshFailed)
	return err
}

// sshFailed is ssh's own exit status, where it could not connect or lost the connection.
const sshFailed = 255

// parting tells what became of the VM: after an interactive session that it runs on, and after a broken
// connection why, where it is the VM that went away. It only informs: what fails here is passed over.
func parting(ctx context.Context, a *app.App, c *client.Client, v api.VM, interactive, broken bool) {
	if !interactive && !broken {
		return
	}
	now, err := settled(ctx, c, string(v.ID), broken)
	switch {
	case err != nil:
	case now.State == nouns.Paused:
		a.Hint("%s is paused: %s", v.Name, now.Reason)
	case now.State != nouns.Running:
		why := ""
		if now.Reason != "" {
			why = ": " + now.Reason
		}
		a.Hint("%s is %s%s; start it with: banger vm start %s", v.Name, now.State, why, v.Name)
	case interactive && !broken: // a guest that is going down is running until it is down
		a.Hint("%s is still running; stop it with: banger vm stop %s", v.Name, v.Name)
	}
}

// settleBudget bounds the wait for the daemon to notice what a broken connection has told us.
const settleBudget = 3 * time.Second

// settled returns the VM; after a broken connection not before the guest answers or is known to be gone.
func settled(ctx context.Context, c *client.Client, id string, broken bool) (api.VM, error) {
	ctx, cancel := context.WithTimeout(ctx, settleBudget)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		v, err := c.VM(ctx, id)
		if err != nil || !broken || v.State != nouns.Running {
			return v, err
		}
		if _, err := c.PingVM(ctx, id); err == nil {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, nil
		case <-poll.C:
		}
	}
}

// reachable tells before ssh starts what ssh would only hint at.
func reachable(v api.VM, key userkey.Key) error {
	if v.State != nouns.Running {
		if v.State == nouns.Paused {
			return fault.New(fault.WrongState, "it is paused: %s", v.Reason).WithOp("log in to VM", v.Name).
				WithHint("free some space on the host, or end it with `banger vm stop %s`", v.Name)
		}
		e := fault.New(fault.WrongState, "it is %s", v.State).WithOp("log in to VM", v.Name)
		if v.State == nouns.Stopped || v.State == nouns.Crashed {
			return e.WithHint("start it with `banger vm start %s`", v.Name)
		}
		return e.WithHint("wait until `banger vm show %s` says that it is running", v.Name)
	}
	if !key.In(v.Keys) {
		return fault.New(fault.Forbidden, "it was made for another SSH key than %s", key.Path).WithOp("log in to VM", v.Name).
			WithHint("set ssh_key to the key that it was made with, or make the VM anew")
	}
	return nil
}
