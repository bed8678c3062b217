package vm

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
	nouns "banger/internal/vm"
)

type deleteOptions struct {
	manner
	force bool
	yes   bool
	now   bool
}

func newDelete(a *app.App) *cobra.Command {
	var s selection
	var o deleteOptions
	cmd := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"},
		Short: "Delete VMs; for a while they can be restored",
		Long: `Delete VMs. Their names, addresses and devices are free at once; their disks go to the trash, out of which
` + "`banger vm trash restore`" + ` takes them back, a week long unless daemon.trash_grace says otherwise. With --now the
disks are gone at once. On a terminal it asks first; elsewhere --all and --label need --yes.
A running VM is refused unless --force is given, which kills it.`,
		Example: `  banger vm delete dev
  banger vm delete --dry-run dev test
  banger vm delete --yes --force dev
  banger vm delete --now dev
  banger vm delete --label ci --dry-run`,
		RunE: run(func(ctx context.Context, names []string) error {
			return deleteVMs(ctx, a, &s, names, o)
		}),
	}
	s.on(cmd, a)
	o.waits(cmd)
	o.plans(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.force, "force", false, "also when it is running")
	f.BoolVar(&o.now, "now", false, "destroy the disks at once: nothing goes to the trash")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	return cmd
}

func deleteVMs(ctx context.Context, a *app.App, s *selection, names []string, o deleteOptions) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	targets, err := s.targets(ctx, a, c, names)
	if err == nil {
		// Before anything is deleted: a typing error in the last name should not cost the first VM.
		err = firstError(targets)
	}
	if err != nil {
		return err
	}
	vms := make([]api.VM, len(targets))
	for i, t := range targets {
		vms[i] = t.vm
	}
	if o.dryRun {
		return showDeletion(a, "delete", vms)
	}
	question := "Delete %s?"
	if o.now {
		question = "Delete %s and everything on the disks for good?"
	}
	if err := agree(ctx, a, question, vms, s.byFlags(), o.yes); err != nil {
		return err
	}
	err = each(ctx, a, c, targets, verb{
		name: "delete", past: "is deleted",
		begin: func(ctx context.Context, c *client.Client, id string) (op.Operation, error) {
			return c.DeleteVM(ctx, id, api.DeleteVM{Force: o.force, Now: o.now})
		},
		after: func(_ context.Context, _ *client.Client, id string) { _ = os.Remove(app.KnownHosts(id)) }, // a cache: a file that stays does no harm
	}, o.noWait)
	if err == nil && !o.now && len(vms) > 0 {
		a.Hint("to take it back: banger vm trash restore %s", vms[0].Name)
	}
	return err
}

func showDeletion(a *app.App, verb string, vms []api.VM) error {
	if a.Data() {
		return a.Print(vms)
	}
	for _, v := range vms {
		fmt.Fprintf(a.IO.Out, "would %s %s (%s, %s): root disk of %s, work disk of %s, in %s\n", verb, term.Escape(v.Name), v.ID, v.State,
			nouns.FormatSize(v.Spec.RootDisk), nouns.FormatSize(v.Spec.WorkDisk), term.Escape(v.Dir))
	}
	return nil
}

// agree asks where somebody can answer. Where nobody can, what flags have chosen is not deleted unseen.
func agree(ctx context.Context, a *app.App, question string, vms []api.VM, byFlags, yes bool) error {
	if yes || len(vms) == 0 {
		return nil
	}
	names := make([]string, len(vms))
	for i, v := range vms {
		names[i] = term.Escape(v.Name)
	}
	what := strings.Join(names, ", ")
	if len(vms) > 1 {
		what = fmt.Sprintf("%d VMs (%s)", len(vms), what)
	}
	if byFlags && !a.IO.InTTY {
		return fault.New(fault.Invalid, "it would delete %s", what).WithOp("delete VMs", "").WithHint("give --yes if that is meant")
	}
	return confirm(ctx, a, false, fmt.Sprintf(question, what))
}

// confirm asks where somebody can answer.
func confirm(ctx context.Context, a *app.App, yes bool, question string) error {
	if yes || !a.IO.InTTY {
		return nil
	}
	answer, err := a.IO.Ask(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	if answer != "y" && answer != "yes" {
		return fault.New(fault.Canceled, "nothing was done")
	}
	return nil
}
