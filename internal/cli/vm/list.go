package vm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	nouns "banger/internal/vm"
)

func newList(a *app.App) *cobra.Command {
	var labels []string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls", "ps"},
		Short: "List your VMs",
		Example: `  banger vm list
  banger vm list --label project=website -o name | xargs banger vm stop`,
		Args:        app.Args(0, 0),
		Annotations: app.ListsNames(),
		RunE: run(func(ctx context.Context, _ []string) error {
			return list(ctx, a, labels)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringArrayVar(&labels, "label", nil, "only those with this label, `KEY` or KEY=VALUE; may be repeated")
	return cmd
}

func list(ctx context.Context, a *app.App, labels []string) error {
	chosen, err := nouns.ParseSelector(labels)
	if err != nil {
		return err
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	get := c.BriefVMs
	if a.Data() {
		get = c.VMs
	}
	vms, err := get(ctx)
	if err != nil {
		return err
	}
	vms = slices.DeleteFunc(vms, func(v api.VM) bool { return !chosen.Matches(v.Labels) })
	switch a.Output {
	case app.JSON, app.Formatted:
		return a.Print(vms)
	case app.Names:
		for _, v := range vms {
			fmt.Fprintln(a.IO.Out, term.Escape(v.Name))
		}
	case app.Table:
		switch {
		case len(vms) == 0 && len(labels) > 0:
			a.Hint("none of your VMs has these labels")
		case len(vms) == 0:
			a.Hint("no VMs; make one with: banger vm create")
		default:
			listTable(a, vms)
		}
	}
	return nil
}

func listTable(a *app.App, vms []api.VM) {
	p, now := a.IO.OutPalette(), time.Now()
	heading := []string{"NAME", "ID", "STATE", "IMAGE", "VCPU", "MEMORY", "ADDRESS", "UPTIME"}
	anyPending := slices.ContainsFunc(vms, func(v api.VM) bool { return len(v.Pending) > 0 })
	if anyPending {
		heading = append(heading, "AT NEXT START")
	}
	anyLabels := slices.ContainsFunc(vms, func(v api.VM) bool { return len(v.Labels) > 0 })
	if anyLabels {
		heading = append(heading, "LABELS")
	}
	anyAils := slices.ContainsFunc(vms, func(v api.VM) bool { return ails(v) != "" })
	if anyAils {
		heading = append(heading, "AILS")
	}
	rows := make([][]term.Cell, len(vms))
	for i, v := range vms {
		row := []term.Cell{
			{Text: v.Name, Style: p.Bold},
			{Text: string(v.ID), Style: p.Dim},
			{Text: string(v.State), Style: stateStyle(p, v.State)},
			term.Text(v.Image.Name),
			term.Text(strconv.Itoa(v.Spec.VCPU)),
			term.Text(nouns.FormatSize(v.Spec.Memory)),
			term.Text(v.Address),
			term.Text(uptime(v, now)),
		}
		if anyPending {
			row = append(row, term.Text(strings.Join(v.Pending, ",")))
		}
		if anyLabels {
			row = append(row, term.Text(labelText(v.Labels)))
		}
		if anyAils {
			row = append(row, term.Text(ails(v)))
		}
		rows[i] = row
	}
	term.Table(a.IO.Out, p, heading, rows)
}

// ails is what does not serve a VM any more that runs on.
func ails(v api.VM) string {
	if v.State != nouns.Running {
		return ""
	}
	return v.Reason
}

func uptime(v api.VM, now time.Time) string {
	if v.State != nouns.Running {
		return "-"
	}
	return term.Age(v.Started, now)
}

func labelText(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, k+"="+labels[k])
	}
	return strings.Join(pairs, ",")
}
