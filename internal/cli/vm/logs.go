package vm

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
)

// allLogs stands for every source at once.
const allLogs = "all"

// logSources are a VM's logs. What its operations did is part of what the daemon says.
func logSources() []string {
	return []string{"console", "firecracker", "network", "daemon", "operation", allLogs}
}

func newLogs(a *app.App) *cobra.Command {
	var q client.LogQuery
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Show what a VM, its hypervisor or the daemon said",
		Long: `Show a VM's log: the guest's serial console, Firecracker's own log, what the guest was refused on the
network (banger vm net log shows that for people), what the daemon logged about the
VM, or of that only the stages of its operations. With --source all each line says which log it is of.
On a terminal colours are dropped and other control characters shown as escapes; in a pipe the bytes
are as they came.`,
		Example: `  banger vm logs dev
  banger vm logs dev -f --since 10m
  banger vm logs dev --source firecracker --tail 50
  banger vm logs dev --source operation | jq 'select(.msg == "stage") | {stage, duration}'
  banger vm logs dev -f --source all`,
		Args:        app.Args(1, 1),
		Annotations: app.Raw(),
		RunE: run(func(ctx context.Context, args []string) error {
			if !slices.Contains(logSources(), q.Source) {
				return fault.New(fault.Invalid, "there is no such log").WithOp("read --source", q.Source).WithHint("use %s", strings.Join(logSources(), ", "))
			}
			if q.Lines < 0 {
				return fault.New(fault.Invalid, "it is negative").WithOp("read --tail", fmt.Sprint(q.Lines)).WithHint("0 shows all that is kept")
			}
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			if q.Source == allLogs {
				return everyLog(ctx, a, c, args[0], q)
			}
			log, err := c.Logs(ctx, args[0], q)
			if err != nil {
				return err
			}
			defer log.Close()
			if a.IO.OutTTY {
				return term.CopyLines(a.IO.Out, log, "")
			}
			_, err = io.Copy(a.IO.Out, log)
			return err
		}),
		ValidArgsFunction: a.Complete(1, app.VMs),
	}
	f := cmd.Flags()
	f.StringVar(&q.Source, "source", logSources()[0], "which `LOG`: "+strings.Join(logSources(), ", "))
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on as it grows, until Ctrl-C")
	f.IntVarP(&q.Lines, "tail", "n", 0, "only the last `N` lines (0 shows all that is kept)")
	f.StringVar(&q.Since, "since", "", "only what was written within this `TIME`, such as 10m, or since a point in time such as 2026-01-02T15:04:05Z")
	_ = cmd.RegisterFlagCompletionFunc("source", cobra.FixedCompletions(logSources(), cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	return cmd
}

// everyLog shows all logs of a VM, one after the other, or side by side when they are followed. Behind a prefix there are
// no bytes as they came: the lines are escaped in a pipe too.
func everyLog(ctx context.Context, a *app.App, c *client.Client, name string, q client.LogQuery) error {
	sources := []string{"console", "firecracker", "network", "daemon"} // the last has the operations too
	out := &oneWriter{w: a.IO.Out}
	copyOne := func(ctx context.Context, q client.LogQuery) error {
		log, err := c.Logs(ctx, name, q)
		if err != nil {
			return err
		}
		defer log.Close()
		return term.CopyLines(out, log, a.IO.OutPalette().Dim(fmt.Sprintf("%-11s", q.Source))+" | ")
	}
	if !q.Follow {
		for _, q.Source = range sources {
			if err := copyOne(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, source := range sources {
		q.Source = source
		one := q
		g.Go(func() error { return copyOne(ctx, one) })
	}
	return g.Wait()
}

// oneWriter lets one write at a time.
type oneWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *oneWriter) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
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
