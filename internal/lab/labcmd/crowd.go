package labcmd

import (
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/fault"
	"banger/internal/lab"
	"banger/internal/lab/bench"
)

// crowdHost is the memory of a lab host for many guests, in MiB.
const crowdHost = 6 << 10

func benchFleet() *cobra.Command {
	var c bench.Crowd
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "bench-fleet", Short: "Measure many creates at once over as many bare Firecracker boots", Args: cobra.NoArgs,
		Long: `Measure many creates at once over as many bare Firecracker boots at once, in one run of a lab host of 6 GiB.

It fails when it is over its limit. docs/performance.md tells what is measured, and how.`,
		Example: "  banger-lab bench-fleet\n  banger-lab bench-fleet --guests 4 --runs 1 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.Runs < 1 || c.Guests < 1 {
				return fault.New(fault.Invalid, "%d runs of %d guests measure nothing", c.Runs, c.Guests).WithOp("measure creates", "").
					WithHint("give --runs and --guests at least 1")
			}
			if err := lab.CheckRequirements(); err != nil {
				return err
			}
			var m bench.Crowded
			argv := []string{"measure-fleet", "--image", c.Image, "--memory", c.Memory, "--guests", strconv.Itoa(c.Guests), "--runs", strconv.Itoa(c.Runs)}
			if err := inLab(cmd.Context(), lab.Run{Argv: argv, Memory: crowdHost, Timeout: timeout}, c.Image, &m); err != nil {
				return err
			}
			r := bench.SummarizeCrowd(m)
			return tellReport(r, r.OK, asJSON)
		},
	}
	many(cmd, &c)
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print all that was measured, as JSON")
	f.DurationVar(&timeout, "timeout", 2*time.Hour, "end the run after this time")
	return cmd
}

// many are the flags that say what is measured.
func many(cmd *cobra.Command, c *bench.Crowd) {
	f := cmd.Flags()
	f.StringVar(&c.Image, "image", "tiny", "image that is booted, such as debian:12")
	f.StringVar(&c.Memory, "memory", "256M", "memory of each guest")
	f.IntVar(&c.Guests, "guests", 20, "how many are made at once")
	f.IntVar(&c.Runs, "runs", 5, "rounds that are measured")
}

func measureFleet() *cobra.Command {
	c := bench.Crowd{Work: "/scratch", Log: os.Stderr}
	cmd := &cobra.Command{
		Use: "measure-fleet FILE", Short: "Inside the lab host: measure creates and bare boots at once", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := c.Run(cmd.Context())
			if err != nil {
				return err
			}
			return hand(args[0], m)
		},
	}
	many(cmd, &c)
	return cmd
}
