package labcmd

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/fault"
	"banger/internal/lab"
	"banger/internal/lab/bench"
)

// fileMeasured is what the lab host's side of a benchmark leaves in the shared folder.
const fileMeasured = "measured.json"

func benchCreate() *cobra.Command {
	var b bench.Bench
	var maxRatio float64
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "bench-create", Short: "Measure creates over bare Firecracker boots, and what banger weighs", Args: cobra.NoArgs,
		Long: `Measure creates over bare Firecracker boots in one run of the lab, and what banger weighs.

It fails when anything is over its limit. docs/performance.md tells what is measured, and how.`,
		Example: "  banger-lab bench-create --runs 10\n  banger-lab bench-create --image debian:12 --memory 512M --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if b.Runs < 1 {
				return fault.New(fault.Invalid, "%d runs measure nothing", b.Runs).WithOp("measure creates", "").WithHint("give --runs at least 1")
			}
			if err := lab.CheckRequirements(); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			list, err := bench.List(cmd.Context(), filepath.Dir(self))
			if err != nil {
				return err
			}
			m, err := measured(cmd, b, timeout)
			if err != nil {
				return err
			}
			m.Weight.List = list
			r := bench.Summarize(m, maxRatio)
			if asJSON {
				enc := json.NewEncoder(os.Stdout)
				enc.SetIndent("", "  ")
				err = enc.Encode(r)
			} else {
				err = r.Text(os.Stdout)
			}
			if err == nil && !r.OK {
				return exitError(1)
			}
			return err
		},
	}
	what(cmd, &b)
	f := cmd.Flags()
	f.Float64Var(&maxRatio, "max", bench.DefaultRatio, "the most that a create may take, as a multiple of a bare boot")
	f.BoolVar(&asJSON, "json", false, "print all that was measured, as JSON")
	f.DurationVar(&timeout, "timeout", 10*time.Minute, "end the run after this time")
	return cmd
}

// what are the flags that say what is measured.
func what(cmd *cobra.Command, b *bench.Bench) {
	f := cmd.Flags()
	f.StringVar(&b.Image, "image", "tiny", "image that is booted, such as debian:12")
	f.StringVar(&b.Memory, "memory", "256M", "memory of each guest")
	f.IntVar(&b.Runs, "runs", 5, "creates, and bare boots, that are measured")
}

// measured measures in the lab.
func measured(cmd *cobra.Command, b bench.Bench, timeout time.Duration) (m bench.Measured, err error) {
	out, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	argv := []string{lab.GuestBinary, "measure-create", "--image", b.Image, "--memory", b.Memory, "--runs", strconv.Itoa(b.Runs), "/out/" + fileMeasured}
	if err := execute(cmd.Context(), lab.Run{Argv: argv, Out: out, Timeout: timeout}, []string{b.Image}); err != nil {
		return m, err
	}
	text, err := os.ReadFile(filepath.Join(out, fileMeasured))
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	return m, err
}

func measureCreate() *cobra.Command {
	b := bench.Bench{Work: "/scratch", Log: os.Stderr}
	cmd := &cobra.Command{
		Use: "measure-create FILE", Short: "Inside the lab host: measure creates and bare boots", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := b.Run(cmd.Context())
			if err != nil {
				return err
			}
			text, err := json.Marshal(m)
			if err != nil {
				return err
			}
			return os.WriteFile(args[0], text, 0o600)
		},
	}
	what(cmd, &b)
	return cmd
}
