package vm

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/sshconfig"
	"banger/internal/cli/term"
	"banger/internal/op"
	nouns "banger/internal/vm"
)

func newFork(a *app.App) *cobra.Command {
	var copies count
	var noWait bool
	cmd := &cobra.Command{
		Use:   "fork NAME [NEW]",
		Short: "Make VMs of another, as it is at this moment",
		Long: `Make one VM or several of another one. A fork has both disks as they are now, and goes on with what is in memory:
what runs in the VM runs in the fork. It is a machine of its own, with its own name, address, host keys and machine id. A VM
that is stopped is forked by its disks, and the forks are booted.

The VM stands still while its memory is written, and then goes on. Without NEW the forks are called NAME-1, NAME-2 and so
on; with NEW and --count they are NEW-1, NEW-2 and so on.`,
		Example: `  banger vm fork dev
  banger vm fork dev experiment
  banger vm fork dev try --count 4`,
		Args:              app.Args(1, 2),
		ValidArgsFunction: a.Complete(1, app.VMs),
		RunE: run(func(ctx context.Context, args []string) error {
			r := api.ForkVM{Count: int(copies)}
			if len(args) > 1 {
				r.Name = args[1]
				if err := nouns.CheckName(r.Name); err != nil {
					return err
				}
			}
			return fork(ctx, a, args[0], r, noWait)
		}),
	}
	cmd.Flags().Var(&copies, "count", "how many to make")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "print the operation's id and return")
	return cmd
}

// forked is what fork prints as JSON.
type forked struct {
	VMs       []api.VM     `json:"vms"`
	Operation op.Operation `json:"operation"`
}

func fork(ctx context.Context, a *app.App, name string, r api.ForkVM, noWait bool) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	begun, err := c.ForkVM(ctx, name, r)
	if err != nil {
		return err
	}
	if noWait {
		return a.Begun(begun)
	}
	final, err := a.Follow(ctx, c, begun)
	if err != nil {
		return err
	}
	out := forked{Operation: final}
	for _, id := range final.Made {
		v, err := c.VM(ctx, id)
		if err != nil {
			return err
		}
		out.VMs = append(out.VMs, v)
	}
	if a.Data() {
		return a.Print(out)
	}
	p := a.IO.OutPalette()
	for _, v := range out.VMs {
		fmt.Fprintf(a.IO.Out, "%s is running (%s)\n", p.Bold(term.Escape(v.Name)), term.Duration(final.Ended.Sub(final.Created)))
	}
	if len(out.VMs) > 0 {
		fmt.Fprintf(a.IO.Out, "next: %s\n", p.Cyan(term.Escape(sshconfig.Login(a, out.VMs[0].Name))))
	}
	return nil
}
