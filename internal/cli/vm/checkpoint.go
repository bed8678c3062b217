package vm

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
	"banger/internal/snapshot"
	nouns "banger/internal/vm"
)

func newCheckpoint(a *app.App) *cobra.Command {
	cmd := app.Group("checkpoint", "Keep a running VM as it is, and take it back to that",
		newCheckpointCreate(a), newCheckpointList(a), newCheckpointRestore(a), newCheckpointDelete(a))
	cmd.Long = `A checkpoint is a VM at one moment: its memory with all that runs in it, and both disks. The VM can be taken back to
it as often as you like, on this host and with this Firecracker. Checkpoints go to the trash with their VM.`
	return cmd
}

// checkpointName is that of one which is not given any: when it is taken, in UTC.
const checkpointName = "2006-01-02-150405"

func newCheckpointCreate(a *app.App) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "create NAME [CHECKPOINT]",
		Short: "Keep a running VM as it is, memory and disks",
		Long: `Keep a running VM as it is at this moment, memory and disks, under a name; without CHECKPOINT that is the time in
UTC. The VM stands still while its memory is written, and then goes on.`,
		Example: `  banger vm checkpoint create dev before-upgrade
  banger vm checkpoint create dev`,
		Args:              app.Args(1, 2),
		ValidArgsFunction: a.Complete(1, app.VMs),
		RunE: run(func(ctx context.Context, args []string) error {
			name := time.Now().UTC().Format(checkpointName)
			if len(args) > 1 {
				name = args[1]
				if err := snapshot.CheckName(name); err != nil {
					return err
				}
			}
			return makeCheckpoint(ctx, a, args[0], name, noWait)
		}),
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "print the operation's id and return")
	return cmd
}

func makeCheckpoint(ctx context.Context, a *app.App, vm, name string, noWait bool) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	begun, err := c.MakeCheckpoint(ctx, vm, api.MakeCheckpoint{Name: name})
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
	if a.Data() {
		return a.Print(final)
	}
	fmt.Fprintf(a.IO.Out, "checkpoint %s of %s is there (%s)\n", term.Escape(name), term.Escape(final.Name), term.Duration(final.Ended.Sub(final.Created)))
	a.Hint("to take the VM back to it: banger vm checkpoint restore %s %s", final.Name, name)
	return nil
}

func newCheckpointList(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "list NAME", Aliases: []string{"ls"}, Short: "List what a VM can be taken back to",
		Example:           `  banger vm checkpoint list dev`,
		Args:              app.Args(1, 1),
		Annotations:       app.ListsNames(),
		ValidArgsFunction: a.Complete(1, app.VMs),
		RunE: run(func(ctx context.Context, args []string) error {
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			all, err := c.Checkpoints(ctx, args[0])
			if err != nil {
				return err
			}
			return listCheckpoints(a, all)
		}),
	}
}

func listCheckpoints(a *app.App, all []api.Checkpoint) error {
	switch a.Output {
	case app.JSON, app.Formatted:
		return a.Print(all)
	case app.Names:
		for _, c := range all {
			fmt.Fprintln(a.IO.Out, term.Escape(c.Name))
		}
	case app.Table:
		if len(all) == 0 {
			a.Hint("it has no checkpoints")
			return nil
		}
		now := time.Now()
		rows := make([][]term.Cell, len(all))
		for i, c := range all {
			usable := "yes"
			if c.Error != nil {
				usable = "no: " + c.Error.Msg
			}
			rows[i] = []term.Cell{
				term.Text(c.Name), term.Text(term.Ago(c.Created, now)), term.Text(nouns.FormatSize(c.Spec.Memory)),
				term.Text(nouns.FormatSize(c.Size)), term.Text(usable),
			}
		}
		term.Table(a.IO.Out, a.IO.OutPalette(), []string{"NAME", "TAKEN", "MEMORY", "ON DISK", "USABLE"}, rows)
	}
	return nil
}

// completeCheckpoint completes a VM's name and then one of its checkpoints.
func completeCheckpoint(a *app.App) cobra.CompletionFunc {
	first := a.Complete(1, app.VMs)
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return first(cmd, args, begun)
		}
		names := a.Complete(-1, func(ctx context.Context, c *client.Client) ([]string, error) {
			all, err := c.Checkpoints(ctx, args[0])
			words := make([]string, len(all))
			for i, s := range all {
				words[i] = s.Name + "\t" + term.Ago(s.Created, time.Now())
			}
			return words, err
		})
		return names(cmd, args, begun)
	}
}

type checkpointOptions struct{ yes, dryRun, noWait bool }

func newCheckpointRestore(a *app.App) *cobra.Command {
	var o checkpointOptions
	cmd := &cobra.Command{
		Use: "restore NAME CHECKPOINT", Short: "Take a VM back to a checkpoint, memory and disks",
		Long: `Take a VM back to a checkpoint: what ran then runs again, and both disks are as they were. Its name, address and keys
stay as they are now. The disks as they are now go to the trash, as a VM that can be taken back; what is in memory is gone.
On a terminal it asks first.`,
		Example: `  banger vm checkpoint restore dev before-upgrade
  banger vm checkpoint restore dev before-upgrade --dry-run`,
		Args:              app.Args(2, 2),
		ValidArgsFunction: completeCheckpoint(a),
		RunE: run(func(ctx context.Context, args []string) error {
			return restoreCheckpoint(ctx, a, args[0], args[1], o)
		}),
	}
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "print the operation's id and return")
	return cmd
}

// checkpointOf finds a VM and one of its checkpoints.
func checkpointOf(ctx context.Context, c *client.Client, vm, name string) (v api.VM, found api.Checkpoint, err error) {
	if v, err = c.VM(ctx, vm); err != nil {
		return v, found, err
	}
	all, err := c.Checkpoints(ctx, vm)
	if err != nil {
		return v, found, err
	}
	for _, s := range all {
		if s.Name == name {
			return v, s, nil
		}
	}
	return v, found, fault.New(fault.NotFound, "VM %s has no checkpoint of this name", v.Name).WithOp("find checkpoint", name).
		WithHint("run `banger vm checkpoint list %s`", v.Name)
}

func restoreCheckpoint(ctx context.Context, a *app.App, vm, name string, o checkpointOptions) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	v, s, err := checkpointOf(ctx, c, vm, name)
	if err != nil {
		return err
	}
	if s.Error != nil {
		return s.Error
	}
	taken := term.Ago(s.Created, time.Now())
	if o.dryRun {
		if a.Data() {
			return a.Print(s)
		}
		fmt.Fprintf(a.IO.Out, "would take %s (%s) back to %s, taken %s, and put the disks that it has now in the trash\n", term.Escape(v.Name), v.State, term.Escape(s.Name), taken)
		return nil
	}
	if err := confirm(ctx, a, o.yes, fmt.Sprintf("Take %s back to %s, taken %s? What is in its memory now is lost.", term.Escape(v.Name), term.Escape(s.Name), taken)); err != nil {
		return err
	}
	return each(ctx, a, c, []target{{name: v.Name, vm: v}}, verb{
		name: "restore", past: "is back at " + s.Name,
		begin: func(ctx context.Context, c *client.Client, id string) (op.Operation, error) {
			return c.RestoreCheckpoint(ctx, id, s.Name)
		},
		after: func(context.Context, *client.Client, string) {
			a.Hint("the disks that it had before are in the trash: banger vm trash list")
		},
	}, o.noWait)
}

func newCheckpointDelete(a *app.App) *cobra.Command {
	var o checkpointOptions
	cmd := &cobra.Command{
		Use: "delete NAME CHECKPOINT", Aliases: []string{"rm"}, Short: "Delete a checkpoint for good; the VM stays as it is",
		Example: `  banger vm checkpoint delete dev before-upgrade
  banger vm checkpoint delete dev before-upgrade --dry-run`,
		Args:              app.Args(2, 2),
		ValidArgsFunction: completeCheckpoint(a),
		RunE: run(func(ctx context.Context, args []string) error {
			return deleteCheckpoint(ctx, a, args[0], args[1], o)
		}),
	}
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	return cmd
}

func deleteCheckpoint(ctx context.Context, a *app.App, vm, name string, o checkpointOptions) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	v, s, err := checkpointOf(ctx, c, vm, name)
	if err != nil {
		return err
	}
	if o.dryRun {
		if a.Data() {
			return a.Print(s)
		}
		fmt.Fprintf(a.IO.Out, "would delete checkpoint %s of %s: %s of memory on the disk\n", term.Escape(s.Name), term.Escape(v.Name), nouns.FormatSize(s.Size))
		return nil
	}
	if err := confirm(ctx, a, o.yes, fmt.Sprintf("Delete checkpoint %s of %s for good?", term.Escape(s.Name), term.Escape(v.Name))); err != nil {
		return err
	}
	if err := c.DeleteCheckpoint(ctx, string(v.ID), s.Name); err != nil {
		return err
	}
	if a.Data() {
		return a.Print(s)
	}
	fmt.Fprintf(a.IO.Out, "checkpoint %s of %s is deleted\n", term.Escape(s.Name), term.Escape(v.Name))
	return nil
}
