package system

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/fault"
)

type uninstallOptions struct{ network, dryRun bool }

func newUninstall(a *app.App) *cobra.Command {
	var o uninstallOptions
	cmd := &cobra.Command{
		Use:   "uninstall --network",
		Short: "Take away what banger changed of this host's network",
		Long: `Take away what banger changed of this host's network and what outlives its VMs: accepts in other firewalls, the
kernel's settings, the resolver's. No VM may run. Devices and banger's own firewall have gone with the last
VM. The next VM that starts has what it needs made again; the resolver stays as it is. It takes root.

Programs, group and units are removed by banger setup --undo, which does this first.`,
		Example: `  sudo banger system uninstall --network --dry-run
  sudo banger system uninstall --network`,
		Args:              app.Args(0, 0),
		RunE:              func(cmd *cobra.Command, _ []string) error { return uninstall(cmd.Context(), a, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&o.network, "network", false, "what it changed of the network")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	return cmd
}

func uninstall(ctx context.Context, a *app.App, o uninstallOptions) error {
	if !o.network {
		return fault.New(fault.Invalid, "it is not said what to take away").WithOp("banger system uninstall", "").
			WithHint("give --network; programs and units are removed by `banger setup --undo`")
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	lines, err := c.UninstallNetwork(ctx, api.UninstallNetwork{DryRun: o.dryRun})
	if err != nil {
		return err
	}
	if a.Data() {
		return a.Print(lines)
	}
	verb := "removed"
	if o.dryRun {
		verb = "would remove"
	}
	for _, line := range lines {
		fmt.Fprintln(a.IO.Out, term.Escape(verb+" "+line))
	}
	if len(lines) == 0 {
		a.Hint("there is nothing of banger's on this host's network")
	}
	return nil
}
