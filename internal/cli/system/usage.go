package system

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/fault"
	"banger/internal/vm"
)

func newUsage(a *app.App) *cobra.Command {
	return app.Group("system", "The host: what banger occupies of its disk and changed of its network", newDF(a), newPrune(a), newUninstall(a))
}

// parts says what a category is called, by what the API calls it.
func parts(category string) string {
	if name, ok := map[string]string{
		"images": "images", "boot": "boot files", "vms": "VMs", "checkpoints": "checkpoints", "golden": "golden snapshots",
		"trash": "trash", "failed": "logs of failed creates",
	}[category]; ok {
		return name
	}
	return category
}

func newDF(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "df", Short: "Show what the parts of the state directory occupy of the disk",
		Long: `Show what the parts of the state directory occupy of the disk, everybody's together. What is shared lies in blocks that
other files have too, such as a disk's and its image's; it counts for each of them. Reclaimable is what "banger system prune"
would free, of the trash what its --trash would.`,
		Example: `  banger system df`,
		Args:    app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			all, err := c.Usage(cmd.Context())
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(all)
			}
			showUsage(a, all)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func showUsage(a *app.App, all []api.StateUsage) {
	rows := make([][]term.Cell, len(all))
	for i, u := range all {
		rows[i] = []term.Cell{
			term.Text(parts(u.Category)), term.Text(strconv.Itoa(u.Count)), term.Text(vm.FormatSize(u.Allocated)),
			term.Text(vm.FormatSize(u.Shared)), term.Text(vm.FormatSize(u.Reclaimable)),
		}
	}
	term.Table(a.IO.Out, a.IO.OutPalette(), []string{"WHAT", "COUNT", "ALLOCATED", "SHARED", "RECLAIMABLE"}, rows)
	for _, u := range all {
		if len(u.Unused) > 0 {
			a.Hint("no VM was made from %s: banger image delete %s", term.Escape(strings.Join(u.Unused, ", ")), term.Escape(u.Unused[0]))
		}
	}
}

type pruneOptions struct{ yes, dryRun, trash bool }

func newPrune(a *app.App) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use: "prune", Short: "Free what nothing needs: idle golden snapshots, spare boot files, logs of failed creates",
		Long: `Say what nothing needs and why, ask, and remove it: golden snapshots whose memory no running VM shares, boot files that no
VM has, logs of creates that failed. The first two are made anew when they are wanted, which makes the next create slower.
With --trash deleted VMs are destroyed too, everybody's. Images, VMs and checkpoints are never removed. It takes root.`,
		Example: `  sudo banger system prune --dry-run
  sudo banger system prune --trash --yes`,
		Args:              app.Args(0, 0),
		RunE:              func(cmd *cobra.Command, _ []string) error { return prune(cmd.Context(), a, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	f.BoolVar(&o.trash, "trash", false, "destroy deleted VMs too: they can no longer be taken back")
	return cmd
}

func prune(ctx context.Context, a *app.App, o pruneOptions) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	if !o.yes || o.dryRun {
		would, err := c.Prune(ctx, api.Prune{DryRun: true, Trash: o.trash})
		if err != nil {
			return err
		}
		if o.dryRun && a.Data() {
			return a.Print(would)
		}
		if !a.Data() {
			tellPruned(a, would)
		}
		if o.dryRun {
			return nil
		}
		if err := agreeToPrune(ctx, a, would); err != nil {
			return err
		}
	}
	done, err := c.Prune(ctx, api.Prune{Trash: o.trash})
	if err != nil {
		return err
	}
	if a.Data() {
		err = a.Print(done)
	} else {
		tellPruned(a, done)
	}
	for _, p := range done {
		if p.Error != nil {
			return p.Error
		}
	}
	return err
}

// agreeToPrune asks where somebody can answer. Where nobody can, nothing is removed unseen.
func agreeToPrune(ctx context.Context, a *app.App, would []api.Pruned) error {
	if len(would) == 0 {
		return nil
	}
	what := fmt.Sprintf("%s and free %s", things(len(would)), vm.FormatSize(sizes(would)))
	if !a.IO.InTTY {
		return fault.New(fault.Invalid, "it would remove %s", what).WithOp("prune", "").WithHint("give --yes if that is meant")
	}
	answer, err := a.IO.Ask(ctx, fmt.Sprintf("Remove %s? [y/N] ", what))
	if err != nil {
		return err
	}
	if answer != "y" && answer != "yes" {
		return fault.New(fault.Canceled, "nothing was removed")
	}
	return nil
}

func things(n int) string {
	if n == 1 {
		return "1 thing"
	}
	return fmt.Sprintf("%d things", n)
}

func sizes(all []api.Pruned) (sum int64) {
	for _, p := range all {
		if p.Error == nil {
			sum += p.Size
		}
	}
	return sum
}

// tellPruned prints a line for each thing, and what they come to.
func tellPruned(a *app.App, all []api.Pruned) {
	if len(all) == 0 {
		a.Hint("there is nothing to free")
		return
	}
	p := a.IO.OutPalette()
	verb := "would free"
	for _, x := range all {
		done := "would remove"
		switch {
		case x.Error != nil:
			done = p.Red("could not remove")
		case x.Done:
			done, verb = "removed", "freed"
		}
		fmt.Fprintf(a.IO.Out, "%s from %s: %s, %s\n", done, parts(x.Category), p.Bold(term.Escape(x.Name)), vm.FormatSize(x.Size))
		why := x.Why
		if x.Error != nil {
			why = x.Error.Error()
		}
		fmt.Fprintf(a.IO.Out, "  %s\n", term.Escape(why))
	}
	fmt.Fprintf(a.IO.Out, "%s %s\n", verb, vm.FormatSize(sizes(all)))
}
