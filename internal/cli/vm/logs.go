package vm

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
)

func newLogs(a *app.App) *cobra.Command {
	var q client.LogQuery
	sources := []string{"console", "firecracker", "daemon"}
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Show what a VM, its hypervisor or the daemon said",
		Long: `Show a VM's raw log: the guest's serial console, Firecracker's own log, or what the daemon logged
about the VM. On a terminal colours are dropped and other control characters shown as escapes; in a
pipe the bytes are as they came.`,
		Example: `  banger vm logs dev
  banger vm logs dev -f
  banger vm logs dev --source firecracker -n 50`,
		Args:        app.Args(1, 1),
		Annotations: app.Raw(),
		RunE: run(func(ctx context.Context, args []string) error {
			if !slices.Contains(sources, q.Source) {
				return fault.New(fault.Invalid, "there is no such log").WithOp("read --source", q.Source).WithHint("use %s", strings.Join(sources, ", "))
			}
			if q.Lines < 0 {
				return fault.New(fault.Invalid, "it is negative").WithOp("read --lines", fmt.Sprint(q.Lines)).WithHint("0 shows all that is kept")
			}
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			log, err := c.Logs(ctx, args[0], q)
			if err != nil {
				return err
			}
			defer log.Close()
			if a.IO.OutTTY {
				return term.CopyLines(a.IO.Out, log)
			}
			_, err = io.Copy(a.IO.Out, log)
			return err
		}),
		ValidArgsFunction: a.Complete(1, app.VMs),
	}
	f := cmd.Flags()
	f.StringVar(&q.Source, "source", sources[0], "which `LOG`: "+strings.Join(sources, ", "))
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on as it grows, until Ctrl-C")
	f.IntVarP(&q.Lines, "lines", "n", 0, "only the last `N` lines (0 shows all that is kept)")
	_ = cmd.RegisterFlagCompletionFunc("source", cobra.FixedCompletions(sources, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	return cmd
}

func newPing(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "ping NAME",
		Short: "Ask the agent in a guest how it is",
		Args:  app.Args(1, 1),
		RunE: run(func(ctx context.Context, args []string) error {
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			pong, err := c.PingVM(ctx, args[0])
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(pong)
			}
			fmt.Fprintf(a.IO.Out, "%s answers in %s: %s, Linux %s, up %s, agent %s\n", term.Escape(args[0]), pong.RoundTrip.Round(10*time.Microsecond),
				term.Escape(pong.OS), term.Escape(pong.Kernel), term.Duration(pong.Uptime), term.Escape(pong.Agent))
			return nil
		}),
		ValidArgsFunction: a.Complete(1, app.VMs),
	}
}
