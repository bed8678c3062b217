// Package system holds the commands about the host and the daemon: status, events, doctor, the disk, setup, version
// and the daemon's log.
package system

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/vm"
)

// Commands returns the commands of this package, which stand at the top level.
func Commands(a *app.App) []*cobra.Command {
	return []*cobra.Command{newStatus(a), newEvents(a), newDoctor(a), newRepair(a), newUsage(a), newSetup(a), newVersion(a)}
}

func newStatus(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the daemon, where it keeps things, and what it is doing",
		Args:  app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(s)
			}
			status(a, s)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func status(a *app.App, s api.Status) {
	p, now := a.IO.OutPalette(), time.Now()
	firecracker := term.Cell{Text: s.Firecracker}
	if s.Firecracker == "" {
		firecracker = term.Cell{Text: "not found; see banger doctor", Style: p.Red}
	}
	bridge := term.Text(strings.TrimSpace(s.Bridge + " " + s.Subnet + " " + s.Subnet6))
	if s.Subnet == "" {
		bridge = term.Cell{Text: "no subnet; see banger doctor", Style: p.Red}
	}
	running := make([]string, len(s.Operations))
	for i, o := range s.Operations {
		running[i] = fmt.Sprintf("%s %s %s", o.ID, o.Kind, o.Name)
	}
	term.Fields(a.IO.Out, p,
		term.Text("daemon"), term.Cell{Text: s.Build.String(), Style: p.Bold},
		term.Text("pid"), term.Text(fmt.Sprintf("%d, up %s, %s resident", s.PID, term.Age(s.Started, now), vm.FormatSize(s.RSS))),
		term.Text("VMs"), term.Text(vmCounts(s.VMs)),
		term.Text("images"), term.Text(strconv.Itoa(s.Images)),
		term.Text("operations"), term.Text(strings.Join(running, ", ")),
		term.Text("firecracker"), firecracker,
		term.Text("bridge"), bridge,
		term.Text("listeners"), listeners(p, s.Listeners),
		term.Text("spare TAPs"), term.Text(spareTAPs(s.SpareTAPs)),
		term.Text("instance"), term.Text(string(s.Instance)),
		term.Text("socket"), term.Text(s.Socket),
		term.Text("state"), term.Text(s.StateDir),
		term.Text("runtime"), term.Text(s.RuntimeDir),
		term.Text("log"), term.Text(s.Log),
		term.Text("database"), rebuilt(p, s.Rebuilt),
	)
}

// listeners has one behind another, and those that fail with their reason.
func listeners(p term.Palette, all []api.Listener) term.Cell {
	var c term.Cell
	var parts []string
	for _, l := range all {
		text := l.Name + " " + l.Address
		if l.Error != "" {
			text, c.Style = l.Name+" fails: "+l.Error, p.Red
		}
		parts = append(parts, text)
	}
	c.Text = strings.Join(parts, ", ")
	return c
}

// spareTAPs is empty where none are kept.
func spareTAPs(s api.SpareTAPs) string {
	if s.Size == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d idle", s.Idle, s.Size)
}

// rebuilt says what became of a database that was lost; empty when none was.
func rebuilt(p term.Palette, r *api.Rebuilt) term.Cell {
	if r == nil {
		return term.Cell{}
	}
	text := fmt.Sprintf("made anew of what %d VMs say of themselves: %s", r.VMs, r.Why)
	if len(r.SetAside) > 0 {
		text += "; the old one is " + r.SetAside[0]
	}
	if len(r.Left) > 0 {
		text += "; not taken in: " + strings.Join(r.Left, "; ")
	}
	return term.Cell{Text: text, Style: p.Red}
}

func vmCounts(counts map[string]int) string {
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		if counts[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[state], state))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// versions is what version prints as JSON. Daemon is absent when none answers.
type versions struct {
	Client buildinfo.Info  `json:"client"`
	Daemon *buildinfo.Info `json:"daemon,omitempty"`
}

func newVersion(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this command and of the daemon",
		Args:  app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := a.Existing()
			if err != nil {
				return err
			}
			v := versions{Client: a.Build}
			daemon := "does not answer"
			if build, err := c.Version(cmd.Context()); err == nil {
				v.Daemon, daemon = &build, build.String()
			}
			if a.Data() {
				return a.Print(v)
			}
			term.Fields(a.IO.Out, a.IO.OutPalette(),
				term.Text("banger"), term.Text(v.Client.String()),
				term.Text("bangerd"), term.Text(daemon),
				term.Text("go"), term.Text(v.Client.Go))
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
