// Package operation holds the commands `banger op …`.
package operation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
)

// New returns `banger op`.
func New(a *app.App) *cobra.Command {
	return app.Group("op", "Follow and cancel long jobs", newList(a), newShow(a), newFollow(a), newCancel(a))
}

func newList(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"},
		Short:       "List operations, newest first",
		Args:        app.Args(0, 0),
		Annotations: app.ListsNames(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			ops, err := c.Operations(cmd.Context())
			if err != nil {
				return err
			}
			switch a.Output {
			case app.JSON, app.Formatted:
				return a.Print(ops)
			case app.Names:
				for _, o := range ops {
					fmt.Fprintln(a.IO.Out, o.ID)
				}
			case app.Table:
				if len(ops) == 0 {
					a.Hint("no operations")
					return nil
				}
				list(a, ops)
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func list(a *app.App, ops []op.Operation) {
	p, now := a.IO.OutPalette(), time.Now()
	rows := make([][]term.Cell, len(ops))
	for i, o := range ops {
		rows[i] = []term.Cell{
			{Text: string(o.ID), Style: p.Bold},
			term.Text(o.Kind), term.Text(o.Name),
			{Text: string(o.State), Style: style(p, o.State)},
			term.Text(term.Ago(o.Created, now)), term.Text(took(o, now)),
		}
	}
	term.Table(a.IO.Out, p, []string{"ID", "KIND", "NAME", "STATE", "BEGAN", "TOOK"}, rows)
}

func took(o op.Operation, now time.Time) string {
	if o.State.Ended() {
		now = o.Ended
	}
	return term.Duration(now.Sub(o.Created))
}

func style(p term.Palette, s op.State) func(string) string {
	switch s {
	case op.Underway:
		return p.Cyan
	case op.Done:
		return p.Green
	case op.Failed:
		return p.Red
	case op.Canceled:
		return p.Yellow
	default:
		return nil
	}
}

func newShow(a *app.App) *cobra.Command {
	var last bool
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show an operation's stages and their times",
		Example: "  banger op show op-0123456789\n  banger op show --last",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			want := 1
			if last {
				want = 0
			}
			if err := app.Args(want, want)(cmd, args); err != nil {
				return err
			}
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			var o op.Operation
			if last {
				o, err = newest(cmd.Context(), c)
			} else {
				o, err = c.Operation(cmd.Context(), op.ID(args[0]))
			}
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(o)
			}
			show(a, o)
			return nil
		},
		ValidArgsFunction: a.Complete(1, app.Operations),
	}
	cmd.Flags().BoolVar(&last, "last", false, "the one that was begun last")
	return cmd
}

func newest(ctx context.Context, c *client.Client) (op.Operation, error) {
	ops, err := c.Operations(ctx)
	if err != nil {
		return op.Operation{}, err
	}
	if len(ops) == 0 {
		return op.Operation{}, fault.New(fault.NotFound, "there is no operation yet")
	}
	return ops[0], nil // newest first
}

func show(a *app.App, o op.Operation) {
	p, now := a.IO.OutPalette(), time.Now()
	var failure fault.Error
	why, subject := "", o.Name
	if o.Subject != o.Name {
		subject += " (" + o.Subject + ")"
	}
	if o.Error != nil {
		failure, why = *o.Error, o.Error.Error()
	}
	term.Fields(a.IO.Out, p,
		term.Text("id"), term.Cell{Text: string(o.ID), Style: p.Bold},
		term.Text("kind"), term.Text(o.Kind),
		term.Text("subject"), term.Text(subject),
		term.Text("state"), term.Cell{Text: string(o.State), Style: style(p, o.State)},
		term.Text("error"), term.Text(why),
		term.Text("in stage"), term.Text(failure.Stage),
		term.Text("hint"), term.Text(failure.Hint),
		term.Text("logs"), term.Text(strings.Join(failure.Logs, ", ")),
		term.Text("warning"), term.Text(strings.Join(o.Warnings, "; ")),
		term.Text("began"), term.Text(term.Ago(o.Created, now)),
		term.Text("took"), term.Text(took(o, now)),
	)
	if len(o.Stages) == 0 {
		return
	}
	fmt.Fprintln(a.IO.Out)
	rows := make([][]term.Cell, len(o.Stages))
	for i, st := range o.Stages {
		duration, outcome := "unfinished", st.Outcome
		if st.Done {
			duration = term.Duration(st.Duration)
		} else if !o.State.Ended() {
			outcome = op.Underway
		}
		detail := st.Detail
		if st.Error != "" {
			detail = st.Error
		}
		rows[i] = []term.Cell{term.Text(st.Name), {Text: string(outcome), Style: style(p, outcome)}, term.Text(duration), term.Text(detail)}
	}
	term.Table(a.IO.Out, p, []string{"STAGE", "STATE", "TOOK", "DETAIL"}, rows)
}

func newFollow(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "follow ID",
		Short: "Show an operation's stages until it ends",
		Long:  "Show an operation's stages until it ends. Its failure is this command's failure.",
		Args:  app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			o, err := c.Operation(ctx, op.ID(args[0]))
			if err != nil {
				return err
			}
			final, err := a.Follow(ctx, c, o)
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(final)
			}
			fmt.Fprintf(a.IO.Out, "%s %s: %s (%s)\n", term.Escape(final.Kind), term.Escape(final.Name), final.State, took(final, final.Ended))
			return nil
		},
		ValidArgsFunction: a.Complete(1, app.Operations),
	}
}

func newCancel(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID",
		Short: "Call an operation off",
		Long:  "Call an operation off. What it had made is removed again.",
		Args:  app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			o, err := c.CancelOperation(ctx, op.ID(args[0]))
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(o)
			}
			fmt.Fprintf(a.IO.Out, "%s is being called off\n", o.ID)
			return nil
		},
		ValidArgsFunction: a.Complete(1, app.Operations),
	}
}
