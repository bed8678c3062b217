package vm

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/exit"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
	nouns "banger/internal/vm"
)

type deleteOptions struct {
	force  bool
	yes    bool
	dryRun bool
}

func newDelete(a *app.App) *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"},
		Short: "Delete VMs and their disks",
		Long: `Delete VMs with both of their disks. On a terminal it asks first.
A running VM is refused unless --force is given, which kills it.`,
		Example: `  banger vm delete dev
  banger vm delete --dry-run dev test
  banger vm delete --yes --force dev`,
		Args: app.Args(1, -1),
		RunE: run(func(ctx context.Context, args []string) error {
			return deleteVMs(ctx, a, args, o)
		}),
		ValidArgsFunction: a.Complete(-1, app.VMs),
	}
	f := cmd.Flags()
	f.BoolVar(&o.force, "force", false, "also when it is running")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be deleted")
	return cmd
}

func deleteVMs(ctx context.Context, a *app.App, names []string, o deleteOptions) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	// Resolved once, so that what is confirmed is what is deleted, and before anything is: a typing
	// error in the last name should not cost the first VM.
	vms := make([]api.VM, len(names))
	ids := make([]string, len(names))
	for i, name := range names {
		if vms[i], err = c.VM(ctx, name); err != nil {
			return err
		}
		ids[i] = string(vms[i].ID)
	}
	if o.dryRun {
		return showDeletion(a, vms)
	}
	if a.IO.InTTY && !o.yes {
		if err := confirm(ctx, a, vms); err != nil {
			return err
		}
	}
	err = each(ctx, a, c, ids, verb{"is deleted", func(ctx context.Context, c *client.Client, id string) (op.Operation, error) {
		return c.DeleteVM(ctx, id, api.DeleteVM{Force: o.force})
	}})
	if exit.Of(err) == exit.OK {
		for _, id := range ids {
			_ = os.Remove(app.KnownHosts(id)) // a cache: a file that stays does no harm
		}
	}
	return err
}

func showDeletion(a *app.App, vms []api.VM) error {
	if a.JSON() {
		term.JSON(a.IO.Out, vms)
		return nil
	}
	for _, v := range vms {
		fmt.Fprintf(a.IO.Out, "would delete %s (%s, %s): root disk of %s, work disk of %s, in %s\n", term.Escape(v.Name), v.ID, v.State,
			nouns.FormatSize(v.Spec.RootDisk), nouns.FormatSize(v.Spec.WorkDisk), term.Escape(v.Dir))
	}
	return nil
}

func confirm(ctx context.Context, a *app.App, vms []api.VM) error {
	names := make([]string, len(vms))
	for i, v := range vms {
		names[i] = term.Escape(v.Name)
	}
	answer, err := a.IO.Ask(ctx, fmt.Sprintf("Delete %s and everything on its disks? [y/N] ", strings.Join(names, ", ")))
	if err != nil {
		return err
	}
	if answer != "y" && answer != "yes" {
		return fault.New(fault.Canceled, "nothing was deleted")
	}
	return nil
}
