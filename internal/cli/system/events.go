package system

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/op"
)

func newEvents(a *app.App) *cobra.Command {
	var q client.EventQuery
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Tell what changes, as it happens",
		Long: `Tell what happens to your VMs, to images and to the daemon, until Ctrl-C. A daemon that is restarted
meanwhile is waited for, and nothing that happened is left out.

Each event has an id. With -o json each is one line; resume with the last "id" you have seen.`,
		Example: `  banger events
  banger events --vm dev
  banger events --since 1h --no-follow
  banger events --since 42 -o json | jq -r 'select(.kind == "vm.crashed") | .name'`,
		Args: app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("vm") && q.VM == "" {
				return fault.New(fault.Invalid, "the name is empty").WithOp("read --vm", "").WithHint("give a VM's name or id")
			}
			if q.Kept && q.Since == "" {
				q.Since = "0" // else there were nothing to tell
			}
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			silent := false
			q.Absent = func() {
				silent = true
				a.Hint("the daemon has gone; waiting for it")
			}
			return c.Events(cmd.Context(), q, func(e event.Event) error {
				if silent {
					silent = false
					a.Hint("the daemon is back")
				}
				if a.Data() {
					return a.PrintLine(e)
				}
				_, err := fmt.Fprintln(a.IO.Out, eventLine(e, a.IO.OutPalette()))
				return err
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&q.Since, "since", "", "also what happened after this event's `ID` (0: all that is kept), or within this time, such as 10m")
	f.StringVar(&q.VM, "vm", "", "only what is about this VM, a `NAME` or id")
	f.BoolVar(&q.Kept, "no-follow", false, "end with what has happened already: all that is kept, without --since")
	_ = cmd.RegisterFlagCompletionFunc("vm", a.Complete(-1, app.VMs)) // fails only for a flag that is not there
	return cmd
}

// eventLine is an event for people: when, what, to whom, and why.
func eventLine(e event.Event, p term.Palette) string {
	var b strings.Builder
	b.WriteString(p.Dim(e.Time.Local().Format(time.DateTime)))
	fmt.Fprintf(&b, "  %-15s", term.Escape(string(e.Kind)))
	add := func(text string) {
		if text != "" {
			b.WriteString("  " + text)
		}
	}
	add(p.Bold(term.Escape(e.Name)))
	if o := e.Operation; o != nil {
		text := o.Kind + " " + string(o.ID)
		if o.State != op.Underway {
			text += " " + string(o.State)
		}
		add(term.Escape(text))
	}
	if e.Was != "" {
		add("was " + term.Escape(e.Was))
	}
	add(term.Escape(strings.Join(e.Changed, ", ")))
	add(kindStyle(e, p)(term.Escape(e.Reason)))
	return strings.TrimRight(b.String(), " ")
}

// kindStyle colours why something happened where somebody may have to act.
func kindStyle(e event.Event, p term.Palette) func(string) string {
	switch {
	case e.Kind == event.Gap:
		return p.Yellow
	case e.Kind == "vm.crashed", e.Operation != nil && e.Operation.State == op.Failed:
		return p.Red
	default:
		return p.Dim
	}
}
