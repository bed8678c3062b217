package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/network"
)

func newNet(a *app.App) *cobra.Command {
	return app.Group("net", "A VM's network: what it was refused", newNetLog(a))
}

func newNetLog(a *app.App) *cobra.Command {
	q := client.LogQuery{Source: "network"}
	cmd := &cobra.Command{
		Use:   "log NAME",
		Short: "Show what a VM was refused on the network, and why",
		Long: `Show the connections that a VM tried and that its policy, or that of another VM, refused, and the names
that it asked for and was not told. At most 10 a second are kept, and the newest 2 MiB. With -o json each
is one line. See banger vm set for its policy, and banger net explain for why one would be refused.`,
		Example: `  banger vm net log agent
  banger vm net log agent -f
  banger vm net log agent --since 1h -o json | jq -r 'select(.protocol == "dns") | .name' | sort | uniq -c`,
		Args: app.Args(1, 1),
		RunE: run(func(ctx context.Context, args []string) error {
			if q.Lines < 0 {
				return fault.New(fault.Invalid, "it is negative").WithOp("read --tail", fmt.Sprint(q.Lines)).WithHint("0 shows all that is kept")
			}
			return netLog(ctx, a, args[0], q)
		}),
		ValidArgsFunction: a.Complete(1, app.VMs),
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on as it grows, until Ctrl-C")
	f.IntVarP(&q.Lines, "tail", "n", 0, "only the last `N` (0 shows all that is kept)")
	f.StringVar(&q.Since, "since", "", "only what was refused within this `TIME`, such as 10m, or since a point in time such as 2026-01-02T15:04:05Z")
	return cmd
}

func netLog(ctx context.Context, a *app.App, name string, q client.LogQuery) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	log, err := c.Logs(ctx, name, q)
	if err != nil {
		return err
	}
	defer log.Close()
	if q.Follow {
		a.Hint("what is refused from now on is shown as it happens; Ctrl-C ends it")
	}
	lines, any := bufio.NewScanner(log), false
	for lines.Scan() {
		var r network.Refusal
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue // a line that was cut short when the disk was full
		}
		any = true
		if a.Data() {
			if err := a.PrintLine(r); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintln(a.IO.Out, term.Escape(r.String())); err != nil {
			return err
		}
	}
	if !any && lines.Err() == nil && !a.Data() {
		a.Hint("%s was refused nothing", name)
	}
	return lines.Err()
}
