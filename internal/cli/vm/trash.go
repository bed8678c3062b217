package vm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
)

func newTrash(a *app.App) *cobra.Command {
	cmd := app.Group("trash", "Deleted VMs: list them, take them back, destroy them", newTrashList(a), newTrashRestore(a), newTrashEmpty(a))
	cmd.Long = `A deleted VM waits in the trash with its disks, a week unless daemon.trash_grace says otherwise or the disk
runs short of space. Until then it can be taken back.`
	return cmd
}

func newTrashList(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List your deleted VMs",
		Example:     `  banger vm trash list`,
		Args:        app.Args(0, 0),
		Annotations: app.ListsNames(),
		RunE: run(func(ctx context.Context, _ []string) error {
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			all, err := c.Trash(ctx)
			if err != nil {
				return err
			}
			return listTrash(a, all)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func listTrash(a *app.App, all []api.Trashed) error {
	switch a.Output {
	case app.JSON, app.Formatted:
		return a.Print(all)
	case app.Names:
		for _, v := range all {
			fmt.Fprintln(a.IO.Out, term.Escape(v.Name))
		}
	case app.Table:
		if len(all) == 0 {
			a.Hint("the trash is empty")
			return nil
		}
		now := time.Now()
		rows := make([][]term.Cell, len(all))
		for i, v := range all {
			rows[i] = []term.Cell{
				term.Text(v.Name), term.Text(string(v.ID)), term.Text(v.Image.Name),
				term.Text(term.Ago(v.Deleted, now)), term.Text("in " + term.Duration(v.Expires.Sub(now))),
			}
		}
		term.Table(a.IO.Out, a.IO.OutPalette(), []string{"NAME", "ID", "IMAGE", "DELETED", "DESTROYED"}, rows)
	}
	return nil
}

// trashNames are the words that name VMs in the trash.
func trashNames(ctx context.Context, c *client.Client) ([]string, error) {
	all, err := c.Trash(ctx)
	words := make([]string, len(all))
	for i, v := range all {
		words[i] = v.Name + "\t" + string(v.ID) + ", deleted " + term.Ago(v.Deleted, time.Now())
	}
	return words, err
}

func newTrashRestore(a *app.App) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "restore NAME", Aliases: []string{"undelete"}, Short: "Take a deleted VM back, with its disks, stopped",
		Example: `  banger vm trash restore dev
  banger vm trash restore dev --name dev-old`,
		Args:              app.Args(1, 1),
		ValidArgsFunction: a.Complete(1, trashNames),
		RunE: run(func(ctx context.Context, args []string) error {
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			back := name
			if back == "" {
				back = args[0]
			}
			return each(ctx, a, c, []target{{name: args[0]}}, verb{
				name: "restore", past: "is back, stopped",
				begin: func(ctx context.Context, c *client.Client, _ string) (op.Operation, error) {
					return c.RestoreVM(ctx, args[0], api.RestoreVM{Name: name})
				},
				after: func(context.Context, *client.Client, string) { a.Hint("next: banger vm start %s", back) },
			}, false)
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "call it `NAME` from now on")
	return cmd
}

type emptyOptions struct{ yes, dryRun bool }

func newTrashEmpty(a *app.App) *cobra.Command {
	var o emptyOptions
	cmd := &cobra.Command{
		Use: "empty [NAME...]", Short: "Destroy deleted VMs with their disks, all of yours or those named",
		Example: `  banger vm trash empty --dry-run
  banger vm trash empty dev
  banger vm trash empty --yes`,
		Args:              app.Args(0, -1),
		ValidArgsFunction: a.Complete(-1, trashNames),
		RunE: run(func(ctx context.Context, names []string) error {
			return emptyTrash(ctx, a, names, o)
		}),
	}
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	return cmd
}

func emptyTrash(ctx context.Context, a *app.App, names []string, o emptyOptions) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	all, err := c.Trash(ctx)
	if err != nil {
		return err
	}
	targets, err := inTrash(all, names)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		a.Hint("the trash is empty")
		return nil
	}
	vms := make([]api.VM, len(targets))
	for i, t := range targets {
		vms[i] = t.vm
	}
	if o.dryRun {
		return showDeletion(a, "destroy", vms)
	}
	if err := agree(ctx, a, "Destroy %s and everything on the disks?", vms, len(names) == 0, o.yes); err != nil {
		return err
	}
	return each(ctx, a, c, targets, verb{
		name: "destroy", past: "is destroyed",
		begin: func(ctx context.Context, c *client.Client, id string) (op.Operation, error) {
			return c.DestroyVM(ctx, id)
		},
	}, false)
}

// inTrash picks what is named, by name or id or the beginning of an id; everything where nothing is named.
func inTrash(all []api.Trashed, names []string) ([]target, error) {
	var out []target
	for _, v := range all {
		if len(names) == 0 {
			out = append(out, target{name: v.Name, vm: v.VM})
		}
	}
	for _, name := range names {
		found := 0
		for _, v := range all {
			if v.Name == name || strings.HasPrefix(string(v.ID), name) {
				out = append(out, target{name: v.Name, vm: v.VM})
				found++
			}
		}
		switch {
		case found == 0:
			return nil, fault.New(fault.NotFound, "nothing in the trash has this name or id").WithOp("find VM in the trash", name).
				WithHint("run `banger vm trash list`")
		case found > 1:
			return nil, fault.New(fault.Ambiguous, "it matches %d VMs in the trash", found).WithOp("find VM in the trash", name).
				WithHint("give the id; `banger vm trash list` tells when each was deleted")
		}
	}
	return out, nil
}
