package vm

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/exit"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
)

// verb is something done to VMs, one operation each.
type verb struct {
	past  string // "stopped"
	begin func(ctx context.Context, c *client.Client, name string) (op.Operation, error)
}

// outcome is what a verb prints as JSON, for each VM.
type outcome struct {
	Name      string        `json:"name"`
	Operation *op.Operation `json:"operation,omitempty"`
	Error     *fault.Error  `json:"error,omitempty"`
}

// each does the verb to every VM named: all operations are begun, then each is awaited. One that
// fails is reported and stops none of the others; the exit status is the first failure's.
func each(ctx context.Context, a *app.App, c *client.Client, names []string, v verb) error {
	outcomes := make([]outcome, len(names))
	errs := make([]error, len(names))
	for i, name := range names {
		outcomes[i].Name = name
		begun, err := v.begin(ctx, c, name)
		if err != nil {
			errs[i] = err
			continue
		}
		outcomes[i].Operation = &begun
	}
	await := a.Follow
	if len(names) > 1 {
		await = a.Await
	}
	var first error
	for i := range outcomes {
		if o := outcomes[i].Operation; o != nil {
			final, err := await(ctx, c, *o)
			errs[i] = err
			if final.ID != "" {
				outcomes[i].Operation = &final
			}
		}
		if errs[i] != nil {
			outcomes[i].Error = fault.From(errs[i])
			a.Report(errs[i])
			if first == nil {
				first = exit.Status(exit.Of(errs[i]))
			}
			continue
		}
		if o := outcomes[i].Operation; !a.JSON() {
			fmt.Fprintf(a.IO.Out, "%s %s (%s)\n", a.IO.OutPalette().Bold(term.Escape(o.Name)), v.past, term.Duration(o.Ended.Sub(o.Created)))
		}
	}
	if a.JSON() {
		term.JSON(a.IO.Out, outcomes)
	}
	return first
}

func newStart(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:     "start NAME...",
		Short:   "Boot VMs that are stopped",
		Example: "  banger vm start dev\n  banger vm start dev test",
		Args:    app.Args(1, -1),
		RunE: run(func(ctx context.Context, args []string) error {
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			return each(ctx, a, c, args, verb{"is running", func(ctx context.Context, c *client.Client, name string) (op.Operation, error) {
				return c.StartVM(ctx, name)
			}})
		}),
		ValidArgsFunction: a.Complete(-1, app.VMs),
	}
}

func newStop(a *app.App) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "stop NAME...",
		Short: "Shut VMs down in order",
		Long: `Ask each guest to shut down and wait for it. One that is not down in time is killed.
Both disks stay: 'banger vm start' boots it again.`,
		Example: "  banger vm stop dev\n  banger vm stop --timeout 2m dev test",
		Args:    app.Args(1, -1),
		RunE: run(func(ctx context.Context, args []string) error {
			if timeout < 0 {
				return fault.New(fault.Invalid, "it is negative").WithOp("read --timeout", timeout.String()).WithHint("write a time such as 30s")
			}
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			return each(ctx, a, c, args, verb{"is stopped", func(ctx context.Context, c *client.Client, name string) (op.Operation, error) {
				return c.StopVM(ctx, name, api.StopVM{Timeout: timeout})
			}})
		}),
		ValidArgsFunction: a.Complete(-1, app.VMs),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long the guest may take, a `TIME` such as 30s (default: the daemon's)")
	return cmd
}

func newKill(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "kill NAME...",
		Short: "End VMs at once, as if the power failed",
		Long: `End each VM's hypervisor at once. What the guest had not written to its disks is lost;
'banger vm stop' is the orderly way.`,
		Example: "  banger vm kill dev",
		Args:    app.Args(1, -1),
		RunE: run(func(ctx context.Context, args []string) error {
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			return each(ctx, a, c, args, verb{"is stopped", func(ctx context.Context, c *client.Client, name string) (op.Operation, error) {
				return c.KillVM(ctx, name)
			}})
		}),
		ValidArgsFunction: a.Complete(-1, app.VMs),
	}
}
