package vm

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
	nouns "banger/internal/vm"
)

func newStart(a *app.App) *cobra.Command {
	var s selection
	var m manner
	cmd := &cobra.Command{
		Use:   "start NAME...",
		Short: "Boot VMs that are stopped",
		Long:  "Boot VMs, several at once. One that runs already is left as it is.",
		Example: `  banger vm start dev
  banger vm start dev test
  banger vm start --label project=website`,
		RunE: run(func(ctx context.Context, names []string) error {
			return many(ctx, a, &s, names, verb{
				name: "start", past: "is running", wanted: []nouns.State{nouns.Running},
				begin: func(ctx context.Context, c *client.Client, id string) (op.Operation, error) {
					return c.StartVM(ctx, id)
				},
			}, m)
		}),
	}
	s.on(cmd, a)
	m.waits(cmd)
	return cmd
}

// down are the states of a VM that does not run.
func down() []nouns.State { return []nouns.State{nouns.Stopped, nouns.Crashed} }

func newStop(a *app.App) *cobra.Command {
	var s selection
	var m manner
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "stop NAME...",
		Short: "Shut VMs down in order",
		Long: `Ask each guest to shut down and wait for it. One that is not down in time is killed.
Both disks stay: 'banger vm start' boots it again.`,
		Example: `  banger vm stop dev
  banger vm stop --timeout 2m dev test
  banger vm stop --all --dry-run`,
		RunE: run(func(ctx context.Context, names []string) error {
			if timeout < 0 {
				return fault.New(fault.Invalid, "it is negative").WithOp("read --timeout", timeout.String()).WithHint("write a time such as 30s")
			}
			return many(ctx, a, &s, names, verb{
				name: "stop", past: "is stopped", wanted: down(),
				begin: func(ctx context.Context, c *client.Client, id string) (op.Operation, error) {
					return c.StopVM(ctx, id, api.StopVM{Timeout: timeout})
				},
			}, m)
		}),
	}
	s.on(cmd, a)
	m.waits(cmd)
	m.plans(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long the guest may take, a `TIME` such as 30s (default: the daemon's)")
	return cmd
}

func newKill(a *app.App) *cobra.Command {
	var s selection
	var m manner
	cmd := &cobra.Command{
		Use:   "kill NAME...",
		Short: "End VMs at once, as if the power failed",
		Long: `End each VM's hypervisor at once. What the guest had not written to its disks is lost;
'banger vm stop' is the orderly way.`,
		Example: "  banger vm kill dev\n  banger vm kill --label ci",
		RunE: run(func(ctx context.Context, names []string) error {
			return many(ctx, a, &s, names, verb{
				name: "kill", past: "is stopped", wanted: down(),
				begin: func(ctx context.Context, c *client.Client, id string) (op.Operation, error) { return c.KillVM(ctx, id) },
			}, m)
		}),
	}
	s.on(cmd, a)
	m.waits(cmd)
	m.plans(cmd)
	return cmd
}
