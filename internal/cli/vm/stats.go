package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	nouns "banger/internal/vm"
)

// statsInterval lies between two looks: a rate is what happened between them.
const statsInterval = time.Second

type statsOptions struct {
	client.StatsQuery
	noStream bool
}

func newStats(a *app.App) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "stats [NAME...]",
		Short: "Show what VMs use: CPU, memory, disk, network",
		Long: `Show what VMs use, all of yours unless some are named, anew each second until Ctrl-C. With -o json or
--format it is a line for each VM and second. In a pipe, and with --no-stream, it is shown once, after
a second.

CPU is what the hypervisor used of the host's within the last second, of which 100% is one core. HOST
MEMORY is what it holds of the host's memory, GUEST MEMORY what the guest's own programs and kernel
need, as its agent says. A disk's first figure is what it takes of the host's. What nobody knows is "-".`,
		Example: `  banger vm stats
  banger vm stats dev test
  banger vm stats --label project=website --no-stream
  banger vm stats --no-stream -o json | jq '.[] | {name, rss: .host.rss}'`,
		Args: app.Args(0, -1),
		RunE: run(func(ctx context.Context, names []string) error {
			o.VMs = names
			return stats(ctx, a, o)
		}),
		ValidArgsFunction: a.Complete(-1, app.VMs),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.Labels, "label", nil, "only those with this label, `KEY` or KEY=VALUE; may be repeated")
	f.BoolVar(&o.noStream, "no-stream", false, "show it once, and end")
	f.BoolVar(&o.Shared, "pss", false, "memory of the host that VMs share counts by its part, which takes longer to find out")
	return cmd
}

// reading is what stats prints as JSON: what a VM has used since its start, and within the last moment.
type reading struct {
	nouns.Stats
	Rates *rates `json:"rates,omitempty"` // absent where there was no look before
}

// rates are what happened between two looks.
type rates struct {
	CPU float64 `json:"cpu_percent"` // of the hypervisor; 100 is one core
	Rx  int64   `json:"rx_bytes_per_second"`
	Tx  int64   `json:"tx_bytes_per_second"`
}

func stats(ctx context.Context, a *app.App, o statsOptions) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	before, err := c.Stats(ctx, o.StatsQuery)
	if err != nil {
		return err
	}
	if len(before) == 0 && !a.Data() {
		a.Hint("no VMs to look at")
		return nil
	}
	show, once, end := showStats(a, o)
	defer end()
	if !once && !a.Data() { // rates are yet to come, but there is something to see
		if err := show(compare(nil, before)); err != nil {
			return err
		}
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		now, err := c.Stats(ctx, o.StatsQuery)
		if err != nil {
			return err
		}
		if err := show(compare(before, now)); err != nil || once {
			return err
		}
		before = now
	}
}

// showStats chooses how: as data or for people, once or again and again.
func showStats(a *app.App, o statsOptions) (show func([]reading) error, once bool, end func()) {
	live := !a.Data() && !o.noStream && a.IO.OutTTY && !a.IO.Dumb
	switch {
	case a.Data() && o.noStream:
		return func(all []reading) error { return a.Print(all) }, true, func() {}
	case a.Data():
		return func(all []reading) error {
			for _, r := range all {
				if err := a.PrintLine(r); err != nil {
					return err
				}
			}
			return nil
		}, false, func() {}
	case live:
		screen := term.NewLive(a.IO)
		return func(all []reading) error {
			var b bytes.Buffer
			statsTable(&b, a.IO.OutPalette(), all)
			screen.Draw(strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"))
			return nil
		}, false, screen.Close
	default:
		return func(all []reading) error {
			statsTable(a.IO.Out, a.IO.OutPalette(), all)
			return nil
		}, true, func() {}
	}
}

// compare adds the rates to the later of two looks.
func compare(before, now []nouns.Stats) []reading {
	earlier := make(map[nouns.ID]nouns.Stats, len(before))
	for _, s := range before {
		earlier[s.ID] = s
	}
	out := make([]reading, len(now))
	for i, s := range now {
		out[i] = reading{s, between(earlier[s.ID], s)}
	}
	return out
}

// between is nil where two looks cannot be compared: a VM that was started meanwhile counts from zero.
func between(before, now nouns.Stats) *rates {
	span := now.At.Sub(before.At).Seconds()
	if before.Host == nil || now.Host == nil || span <= 0 || now.Host.CPU < before.Host.CPU {
		return nil
	}
	r := &rates{CPU: 100 * (now.Host.CPU - before.Host.CPU).Seconds() / span}
	if b, n := before.Network, now.Network; b != nil && n != nil && n.RxBytes >= b.RxBytes && n.TxBytes >= b.TxBytes {
		r.Rx, r.Tx = int64(float64(n.RxBytes-b.RxBytes)/span), int64(float64(n.TxBytes-b.TxBytes)/span)
	}
	return r
}

func statsTable(w io.Writer, p term.Palette, all []reading) {
	rows := make([][]term.Cell, len(all))
	for i, r := range all {
		rows[i] = append([]term.Cell{{Text: r.Name, Style: p.Bold}, {Text: string(r.State), Style: stateStyle(p, r.State)}}, figures(r)...)
	}
	term.Table(w, p, []string{"NAME", "STATE", "CPU", "HOST MEMORY", "GUEST MEMORY", "ROOT DISK", "WORK DISK", "RECEIVES", "SENDS"}, rows)
}

func figures(r reading) []term.Cell {
	const unknown = "-"
	of := func(used, all int64) string { return nouns.FormatSize(used) + " / " + nouns.FormatSize(all) }
	cpu, host, guest, rx, tx := unknown, unknown, unknown, unknown, unknown
	if r.Host != nil {
		held := r.Host.RSS
		if r.Host.PSS > 0 {
			held = r.Host.PSS
		}
		host = nouns.FormatSize(held)
	}
	if g := r.Guest; g != nil {
		guest = of(g.Total-g.Available, g.Total)
	}
	if r.Rates != nil {
		cpu = fmt.Sprintf("%.0f%%", r.Rates.CPU)
		if r.Network != nil {
			rx, tx = nouns.FormatSize(r.Rates.Rx)+"/s", nouns.FormatSize(r.Rates.Tx)+"/s"
		}
	}
	var cells []term.Cell
	for _, text := range []string{cpu, host, guest, of(r.Root.Allocated, r.Root.Size), of(r.Work.Allocated, r.Work.Size), rx, tx} {
		cells = append(cells, term.Text(text))
	}
	return cells
}
