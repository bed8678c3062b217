package labcmd

import (
	"github.com/spf13/cobra"

	"banger/internal/fault"
	"banger/internal/lab/bench"
)

func benchNetwork() *cobra.Command {
	var n bench.Network
	var asJSON bool
	cmd := &cobra.Command{
		Use: "bench-network", Short: "Measure the firewall as its guests become a thousand", Args: cobra.NoArgs,
		Long: `Measure the firewall as its guests become a thousand: adding one, its number of rules, and making
all of it anew.

It fails when anything is over its limit. docs/performance.md tells what is measured, and how. It needs
root, not the lab, and works in a network namespace of its own.`,
		Example: "  banger-lab bench-network\n  banger-lab bench-network --guests 100 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n.Guests < fleetMin || n.Guests > 1<<15 || n.Runs < 1 {
				return fault.New(fault.Invalid, "%d runs with %d guests say nothing of growth", n.Runs, n.Guests).WithOp("measure the firewall", "").
					WithHint("give --guests from %d to %d, and --runs at least 1", fleetMin, 1<<15)
			}
			m, err := n.Run(cmd.Context())
			if err != nil {
				return err
			}
			r := bench.SummarizeNetwork(m)
			return tellReport(r, r.OK, asJSON)
		},
	}
	f := cmd.Flags()
	f.IntVar(&n.Guests, "guests", 1000, "how many there are in the end")
	f.IntVar(&n.Runs, "runs", 21, "adds of each kind, and rebuilds, that are measured")
	f.BoolVar(&asJSON, "json", false, "print all that was measured, as JSON")
	return cmd
}
