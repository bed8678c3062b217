package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/exit"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
	nouns "banger/internal/vm"
)

// atOnce is how many VMs one command works on at the same time: the host has only so many cores and disks.
const atOnce = 16

// selection is which VMs a command works on: those that are named, or those that its flags choose.
type selection struct {
	flag   string // that chooses by label; empty is "label"
	labels []string
	all    bool
}

// on gives a command `NAME...`, --label and --all.
func (s *selection) on(cmd *cobra.Command, a *app.App) {
	if s.flag == "" {
		s.flag = "label"
	}
	cmd.Flags().StringArrayVar(&s.labels, s.flag, nil, "all of yours with this label, `KEY` or KEY=VALUE; may be repeated")
	cmd.Flags().BoolVar(&s.all, "all", false, "all of yours")
	cmd.Args = s.check
	cmd.ValidArgsFunction = a.Complete(-1, app.VMs)
}

func (s *selection) byFlags() bool { return s.all || len(s.labels) > 0 }

func (s *selection) check(cmd *cobra.Command, names []string) error {
	ways := 0
	for _, used := range []bool{len(names) > 0, s.all, len(s.labels) > 0} {
		if used {
			ways++
		}
	}
	if ways == 1 {
		return nil
	}
	msg := "it needs NAME..., --%s or --all"
	if ways > 1 {
		msg = "names, --%s and --all do not go together"
	}
	return fault.New(fault.Invalid, msg, s.flag).WithOp(cmd.CommandPath(), "").WithHint("usage: %s", cmd.UseLine())
}

// target is a VM to work on, or why there is none of that name.
type target struct {
	name string
	vm   api.VM
	err  error
}

// targets finds the VMs. Flags choose among the user's own, also where root sees everyone's. A VM that is named
// twice is one.
func (s *selection) targets(ctx context.Context, a *app.App, c *client.Client, names []string) ([]target, error) {
	if s.byFlags() {
		return s.chosen(ctx, a, c)
	}
	var out []target
	for _, name := range names {
		v, err := c.VM(ctx, name)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil {
			name = v.Name
		}
		if !slices.ContainsFunc(out, func(t target) bool { return err == nil && t.vm.ID == v.ID }) {
			out = append(out, target{name, v, err})
		}
	}
	return out, nil
}

func (s *selection) chosen(ctx context.Context, a *app.App, c *client.Client) ([]target, error) {
	chosen, err := nouns.ParseSelector(s.labels)
	if err != nil {
		return nil, err
	}
	vms, err := c.VMs(ctx)
	if err != nil {
		return nil, err
	}
	var out []target
	for _, v := range vms {
		if v.Owner == os.Geteuid() && chosen.Matches(v.Labels) {
			out = append(out, target{name: v.Name, vm: v})
		}
	}
	switch {
	case len(out) > 0:
	case s.all:
		a.Hint("you have no VMs")
	default:
		a.Hint("none of your VMs has these labels")
	}
	return out, nil
}

// firstError is for what is not to be begun unless all of it can be.
func firstError(targets []target) error {
	for _, t := range targets {
		if t.err != nil {
			return t.err
		}
	}
	return nil
}

// verb is something done to VMs, one operation each.
type verb struct {
	name   string        // "stop"
	past   string        // "is stopped"
	wanted []nouns.State // in which there is nothing to do
	begin  func(ctx context.Context, c *client.Client, id string) (op.Operation, error)
	after  func(ctx context.Context, c *client.Client, id string) // what follows a success; may be nil
}

// manner is how a verb is done, by its flags.
type manner struct {
	noWait bool
	dryRun bool
}

func (m *manner) waits(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&m.noWait, "no-wait", false, "print the operations' ids and return")
}

func (m *manner) plans(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&m.dryRun, "dry-run", false, "only show what would be done")
}

// many does a verb to the VMs that are selected.
func many(ctx context.Context, a *app.App, s *selection, names []string, v verb, m manner) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	targets, err := s.targets(ctx, a, c, names)
	if err != nil {
		return err
	}
	if m.dryRun {
		return showPlan(a, targets, v)
	}
	return each(ctx, a, c, targets, v, m.noWait)
}

// outcome is what a verb prints as JSON, for each VM.
type outcome struct {
	Name      string        `json:"name"`
	ID        nouns.ID      `json:"id,omitempty"`
	Operation *op.Operation `json:"operation,omitempty"`
	State     nouns.State   `json:"state,omitempty"` // where there was nothing to do
	Error     *fault.Error  `json:"error,omitempty"`
}

// each does the verb to every target, some at once, and waits unless noWait is given. One that fails stops none
// of the others. A VM that is as it was wanted already counts as a success. Ctrl-C leaves what has begun
// running and begins nothing more.
func each(ctx context.Context, a *app.App, c *client.Client, targets []target, v verb, noWait bool) error {
	outcomes := make([]outcome, len(targets))
	errs := make([]error, len(targets))
	show := shown(ctx, a, c, targets, noWait)
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, t := range targets {
		outcomes[i] = outcome{Name: t.name, ID: t.vm.ID}
		g.Go(func() error {
			if ctx.Err() == nil {
				errs[i] = v.do(ctx, c, t, &outcomes[i], func(o op.Operation) (op.Operation, error) { return show.follow(i, o) })
			}
			show.end(i)
			return nil
		})
	}
	_ = g.Wait() // nothing fails but what is in errs
	show.close()
	return report(ctx, a, v, outcomes, errs, noWait)
}

// showing is how operations are shown and awaited.
type showing struct {
	follow func(i int, o op.Operation) (op.Operation, error)
	end    func(i int)
	close  func()
}

func shown(ctx context.Context, a *app.App, c *client.Client, targets []target, noWait bool) showing {
	s := showing{end: func(int) {}, close: func() {}}
	switch {
	case noWait:
		s.follow = func(_ int, o op.Operation) (op.Operation, error) { return o, nil }
	case len(targets) == 1:
		s.follow = func(_ int, o op.Operation) (op.Operation, error) { return a.Follow(ctx, c, o) }
	default:
		names := make([]string, len(targets))
		for i, t := range targets {
			names[i] = t.name
		}
		board := term.NewBoard(a.IO, names)
		s.follow = func(i int, o op.Operation) (op.Operation, error) {
			return a.FollowOn(ctx, c, o, func(o op.Operation) { board.Update(i, o) })
		}
		s.end, s.close = board.End, board.Close
	}
	return s
}

func (v verb) do(ctx context.Context, c *client.Client, t target, out *outcome, follow func(op.Operation) (op.Operation, error)) error {
	if t.err != nil {
		return t.err
	}
	o, err := v.begin(ctx, c, string(t.vm.ID))
	if err == nil {
		out.Operation = &o
		var final op.Operation
		final, err = follow(o)
		if final.ID != "" {
			out.Operation = &final
		}
	}
	if fault.Is(err, fault.WrongState) {
		// It may be what was wanted all the same, since long ago or by another's doing.
		if now, lost := c.VM(ctx, string(t.vm.ID)); lost == nil && slices.Contains(v.wanted, now.State) {
			out.State, err = now.State, nil
		}
	}
	if err == nil && v.after != nil {
		v.after(ctx, c, string(t.vm.ID))
	}
	return err
}

// report prints what became of each, in the order in which they were given.
func report(ctx context.Context, a *app.App, v verb, outcomes []outcome, errs []error, noWait bool) error {
	left, last := 0, 0
	for i := range outcomes {
		o := &outcomes[i]
		interrupted := ctx.Err() != nil
		switch {
		case errs[i] == nil && (o.Operation != nil || o.State != ""):
			if !a.Data() {
				say(a, v, *o, noWait)
			}
		case interrupted && o.Operation != nil && !o.Operation.State.Ended():
			left, last = left+1, i
		case interrupted && (errs[i] == nil || errors.Is(errs[i], context.Cause(ctx))): // not begun
		default:
			o.Error = fault.From(errs[i])
			a.Report(errs[i])
		}
	}
	if a.Data() {
		if err := a.Print(outcomes); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		return exit.Common(errs)
	}
	switch left {
	case 0:
		return context.Cause(ctx)
	case 1:
		return errs[last]
	}
	return fault.New(fault.Canceled, "you left %d operations, which go on", left).
		WithHint("`banger op list` shows them; follow one with `banger op follow ID`, or call it off with `banger op cancel ID`")
}

func say(a *app.App, v verb, o outcome, noWait bool) {
	name := a.IO.OutPalette().Bold(term.Escape(o.Name))
	switch {
	case o.State != "" && noWait:
		a.Hint("%s is %s already", o.Name, o.State)
	case o.State != "":
		fmt.Fprintf(a.IO.Out, "%s is %s already\n", name, o.State)
	case noWait:
		fmt.Fprintln(a.IO.Out, o.Operation.ID)
	default:
		fmt.Fprintf(a.IO.Out, "%s %s (%s)\n", name, v.past, term.Duration(o.Operation.Ended.Sub(o.Operation.Created)))
	}
}

// showPlan tells what a verb would be done to, and nothing is.
func showPlan(a *app.App, targets []target, v verb) error {
	if err := firstError(targets); err != nil {
		return err
	}
	would := []api.VM{}
	for _, t := range targets {
		if slices.Contains(v.wanted, t.vm.State) {
			a.Hint("%s is %s already", t.name, t.vm.State)
			continue
		}
		would = append(would, t.vm)
	}
	if a.Data() {
		return a.Print(would)
	}
	for _, m := range would {
		fmt.Fprintf(a.IO.Out, "would %s %s (%s, %s)\n", v.name, term.Escape(m.Name), m.ID, m.State)
	}
	return nil
}
