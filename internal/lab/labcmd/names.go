package labcmd

import (
	"time"

	"github.com/spf13/cobra"

	"banger/internal/fault"
	"banger/internal/lab/bench"
)

func benchDNS() *cobra.Command {
	n := bench.Names{}
	var asJSON bool
	cmd := &cobra.Command{
		Use: "bench-dns", Short: "Measure the DNS server's queries a second over those of a bare UDP server", Args: cobra.NoArgs,
		Long: `Measure how many queries a second the DNS server answers on the loopback, over what a server that
sends back what it gets does with the same clients. It needs neither root nor the lab.

It fails when the DNS server does less than half of it, or leaves a query without an answer.`,
		Example: "  banger-lab bench-dns\n  banger-lab bench-dns --rounds 20 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n.Rounds < 1 {
				return fault.New(fault.Invalid, "%d rounds measure nothing", n.Rounds).WithOp("measure names", "").WithHint("give --rounds at least 1")
			}
			m, err := n.Run(cmd.Context())
			if err != nil {
				return err
			}
			r := bench.SummarizeNames(m)
			return tellReport(r, r.OK, asJSON)
		},
	}
	f := cmd.Flags()
	f.IntVar(&n.Rounds, "rounds", 5, "how often both are measured")
	f.DurationVar(&n.Each, "each", 2*time.Second, "how long a round of each takes")
	f.BoolVar(&asJSON, "json", false, "print all that was measured, as JSON")
	return cmd
}
