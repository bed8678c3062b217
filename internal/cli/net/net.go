// Package net holds the commands about the network between VMs and everything else.
package net

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/exit"
	"banger/internal/cli/term"
)

// New returns `banger net`.
func New(a *app.App) *cobra.Command {
	return app.Group("net", "The network: why something can be reached, or not", newExplain(a))
}

func newExplain(a *app.App) *cobra.Command {
	var probe bool
	cmd := &cobra.Command{
		Use:   "explain NAME DESTINATION",
		Short: "Say why a VM reaches something, or does not",
		Long: `Go the way of a packet from a running VM to a DESTINATION, HOST, HOST:PORT or a URL: the name and its
addresses as the guest is told them, isolation, egress policy and the firewall's rule, NAT, the host's
route, and other firewalls. It ends at the first step that does not let the packet pass, says what would,
and exits with 1. With --probe the guest connects for real, to compare.`,
		Example: `  banger net explain dev example.com:443
  banger net explain dev https://example.com --probe
  banger net explain dev other.vm
  banger net explain dev 203.0.113.7:22 -o json | jq -r '.steps[-1].detail'`,
		Args: app.Args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return explain(cmd.Context(), a, args[0], api.Explain{Destination: args[1], Probe: probe})
		},
		ValidArgsFunction: a.Complete(1, app.VMs),
	}
	cmd.Flags().BoolVar(&probe, "probe", false, "have the guest connect, too")
	return cmd
}

func explain(ctx context.Context, a *app.App, name string, r api.Explain) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	e, err := c.Explain(ctx, name, r)
	if err != nil {
		return err
	}
	if a.Data() {
		if err := a.Print(e); err != nil {
			return err
		}
		return verdict(a, e)
	}
	show(a, e)
	return verdict(a, e)
}

func show(a *app.App, e api.Explanation) {
	p := a.IO.OutPalette()
	for _, s := range e.Steps {
		mark := p.Green("✓")
		if !s.Passes {
			mark = p.Red("✗")
		}
		rule := ""
		if s.Rule != "" {
			rule = p.Dim("  (chain " + term.Escape(s.Rule) + ")")
		}
		fmt.Fprintf(a.IO.Out, "%s %-15s %s%s\n", mark, s.Subject, term.Escape(s.Detail), rule)
	}
	if e.Probe == nil {
		return
	}
	if e.Probe.Connected {
		fmt.Fprintf(a.IO.Out, "%s %-15s the guest connected in %s\n", p.Green("✓"), "probe", term.Duration(e.Probe.Took))
	} else {
		fmt.Fprintf(a.IO.Out, "%s %-15s the guest did not connect: %s\n", p.Red("✗"), "probe", term.Escape(e.Probe.Error))
	}
}

// verdict ends with a status of its own where the destination is not reached: what is wrong has been said. The probe has
// the last word.
func verdict(a *app.App, e api.Explanation) error {
	switch {
	case e.Probe != nil && e.Probe.Connected, e.Probe == nil && e.Passes:
		return nil
	case !e.Passes:
		a.Hint("hint: %s", e.Hint)
	default:
		a.Hint("hint: nothing on this host keeps it from that: does anything listen there, and do those between let it pass?")
	}
	return exit.Status(1)
}
