// Package dns holds the commands `banger dns …`.
package dns

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
)

// New returns `banger dns`.
func New(a *app.App) *cobra.Command {
	cmd := app.Group("dns", "Have this host's programs find VMs as NAME.vm", newSetup(a), newStatus(a), newUndo(a))
	cmd.Long = `The daemon answers for the name of each VM that runs. These commands have the host's own resolver ask it, which is systemd-resolved or
NetworkManager's dnsmasq, for names below .vm and for nothing else, and take that back.`
	return cmd
}

func newSetup(a *app.App) *cobra.Command {
	return change(a, &cobra.Command{
		Use: "setup", Short: "Have the host's resolver ask the daemon for names below .vm",
		Long: `Have the host's resolver ask the daemon for names below .vm, and prove it by asking for a VM that runs. What the resolver does with all other
names stays as it is. The daemon keeps it up: through restarts of the resolver, and on its next port. It takes root.`,
		Example: "  sudo banger dns setup --dry-run\n  sudo banger dns setup\n  getent hosts dev.vm",
	}, (*client.Client).SetUpDNS)
}

func newUndo(a *app.App) *cobra.Command {
	return change(a, &cobra.Command{
		Use: "undo", Short: "Leave the host's resolver as it was before setup",
		Long:    "Leave the host's resolver as it was before `banger dns setup`. Where nothing was set up nothing is done. It takes root.",
		Example: "  sudo banger dns undo --dry-run\n  sudo banger dns undo",
	}, (*client.Client).UndoDNS)
}

func change(a *app.App, cmd *cobra.Command, do func(*client.Client, context.Context, api.DNSRequest) (api.DNSChange, error)) *cobra.Command {
	var r api.DNSRequest
	cmd.Args, cmd.ValidArgsFunction = app.Args(0, 0), cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.Connect(cmd.Context())
		if err != nil {
			return err
		}
		done, err := do(c, cmd.Context(), r)
		if err != nil {
			return err
		}
		return tell(a, done)
	}
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only show what would be done")
	return cmd
}

func tell(a *app.App, done api.DNSChange) error {
	if a.Data() {
		if err := a.Print(done); err != nil {
			return err
		}
		return failure(done.DNS)
	}
	for _, s := range done.Steps {
		fmt.Fprintln(a.IO.Out, term.Escape(s))
	}
	switch {
	case len(done.Steps) == 0:
		a.Hint("nothing to do: nothing was set up")
	case !done.Done:
		a.Hint("nothing was done: leave out --dry-run to do it")
	case done.DNS.Wiring != "" && done.DNS.Proof == nil:
		a.Hint("no VM of yours runs: it is in effect from the first one on")
	case done.DNS.Proof != nil && done.DNS.Proof.Error == nil:
		a.Hint("%s is %s to this host's programs", term.Escape(done.DNS.Proof.Name), done.DNS.Proof.Address)
	}
	return failure(done.DNS)
}

// failure is what the proof came to.
func failure(now api.DNS) error {
	if now.Proof != nil && now.Proof.Error != nil {
		return now.Proof.Error
	}
	return nil
}

func newStatus(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show whether this host's programs find VMs by name",
		Long: `Show where the daemon answers for names, what was set up to ask it, and what the host's programs are told of a VM of yours that runs. It
fails where that is not its address.`,
		Example: "  banger dns status",
		Args:    app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			now, err := c.DNS(cmd.Context())
			if err != nil {
				return err
			}
			if a.Data() {
				err = a.Print(now)
			} else {
				show(a, now)
			}
			if err != nil {
				return err
			}
			return failure(now)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func show(a *app.App, now api.DNS) {
	p := a.IO.OutPalette()
	server, wiring, proof := term.Text(now.Server), term.Text(now.Wiring), term.Text("no VM of yours runs")
	if now.Server == "" {
		server = term.Cell{Text: "none; see banger status", Style: p.Red}
	}
	switch {
	case now.Wiring == "":
		wiring, proof = term.Text("none; see banger dns setup"), term.Text("")
	case now.Proof != nil && now.Proof.Error != nil:
		proof = term.Cell{Text: now.Proof.Name + " is not " + now.Proof.Address, Style: p.Red}
	case now.Proof != nil:
		proof = term.Text(now.Proof.Name + " is " + now.Proof.Address)
	}
	term.Fields(a.IO.Out, p, term.Text("server"), server, term.Text("wiring"), wiring, term.Text("proof"), proof)
}
