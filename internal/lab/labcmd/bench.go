package labcmd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
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
	var chart string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "bench-create", Short: "Measure creates and the other verbs over bare Firecracker boots, and what banger weighs", Args: cobra.NoArgs,
		Long: `Measure creates, cold and warm, fork, start, stop and delete over bare Firecracker boots in one run of the lab,
and what banger weighs. A chart is drawn beside.

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
			if err := draw(chart, r); err != nil {
				return err
			}
			return tellReport(r, r.OK, asJSON)
		},
	}
	what(cmd, &b)
	f := cmd.Flags()
	f.Float64Var(&maxRatio, "max", bench.DefaultRatio, "the most that a cold create may take, as a multiple of a bare boot")
	f.BoolVar(&asJSON, "json", false, "print all that was measured, as JSON")
	f.StringVar(&chart, "chart", filepath.Join("bin", "bench-create.svg"), "file to draw the chart in")
	f.DurationVar(&timeout, "timeout", time.Hour, "end the run after this time")
	return cmd
}

func draw(file string, r bench.Report) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(r.Chart(f), f.Close())
}

// tellReport prints a report, and fails where it is not well.
func tellReport(r interface{ Text(w io.Writer) error }, ok, asJSON bool) (err error) {
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.Text(os.Stdout)
	}
	if err == nil && !ok {
		return exitError(1)
	}
	return err
}

// what are the flags that say what is measured.
func what(cmd *cobra.Command, b *bench.Bench) {
	f := cmd.Flags()
	f.StringVar(&b.Image, "image", "tiny", "image that is booted, such as debian:12")
	f.StringVar(&b.Memory, "memory", "256M", "memory of each guest")
	f.IntVar(&b.Runs, "runs", 5, "rounds that are measured, each of all verbs and a bare boot")
}

// measured measures in the lab.
func measured(cmd *cobra.Command, b bench.Bench, timeout time.Duration) (m bench.Measured, err error) {
	argv := []string{"measure-create", "--image", b.Image, "--memory", b.Memory, "--runs", strconv.Itoa(b.Runs)}
	err = inLab(cmd.Context(), lab.Run{Argv: argv, Timeout: timeout}, b.Image, &m)
	return m, err
}

// inLab has this program measure in a lab host that has an image, and decodes what that saw. The arguments end with the
// file for it.
func inLab(ctx context.Context, r lab.Run, image string, into any) (err error) {
	out, err := os.MkdirTemp("", "banger-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	r.Argv, r.Out = append(append([]string{lab.GuestBinary}, r.Argv...), "/out/"+fileMeasured), out
	r.Env = append(r.Env, "BANGER_BOOT_TIMEOUT="+bench.BootTime.String())
	if err := execute(ctx, r, []string{image}); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(out, fileMeasured))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// hand writes what was measured for who asked for it.
func hand(file string, m any) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

func measureCreate() *cobra.Command {
	b := bench.Bench{Work: "/scratch", Log: os.Stderr}
	cmd := &cobra.Command{
		Use: "measure-create FILE", Short: "Inside the lab host: measure verbs and bare boots", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := b.Run(cmd.Context())
			if err != nil {
				return err
			}
			return hand(args[0], m)
		},
	}
	what(cmd, &b)
	return cmd
}
