package vm

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/op"
	nouns "banger/internal/vm"
)

func newPort(a *app.App) *cobra.Command {
	cmd := app.Group("port", "Have ports of the host lead to a VM's", newPortAdd(a), newPortList(a), newPortRemove(a))
	cmd.Long = `A port of the host leads to one of a VM's while the VM runs, also to what listens on the guest's loopback alone. It
is the daemon that listens, on 127.0.0.1 unless another address is asked for. A PORT is written as Docker has it:
[[ADDRESS:]HOST_PORT:]GUEST_PORT; with no host port, as in :80, one that is free is chosen, which it keeps.`
	return cmd
}

func newPortAdd(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "add NAME PORT...", Short: "Have ports of the host lead to a VM's, at once where it runs",
		Example: `  banger vm port add dev 8080:80
  banger vm port add dev 0.0.0.0:8443:443 '[::1]:8080:80' :5432`,
		Args:              app.Args(2, -1),
		ValidArgsFunction: a.Complete(1, app.VMs),
		RunE: run(func(ctx context.Context, args []string) error {
			text, err := portsText("+", args[1:])
			if err != nil {
				return err
			}
			return setPorts(ctx, a, args[0], text)
		}),
	}
}

// portsText is a value of the setting that adds these ports or, with no sign, has them be all.
func portsText(sign string, ports []string) (string, error) {
	signed := make([]string, len(ports))
	for i, p := range ports {
		if _, err := nouns.ParseDoor(p); err != nil {
			return "", err
		}
		signed[i] = sign + p
	}
	return strings.Join(signed, ","), nil
}

// setPorts changes a VM's ports, and shows what it has then.
func setPorts(ctx context.Context, a *app.App, name, text string) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	v, err := c.VM(ctx, name)
	if err != nil {
		return err
	}
	var begun op.Operation
	if begun, err = c.SetVM(ctx, string(v.ID), api.SetVM{Settings: map[string]string{nouns.SettingPorts: text}}); err != nil {
		return err
	}
	if _, err := a.Follow(ctx, c, begun); err != nil {
		return err
	}
	ports, err := c.Ports(ctx, string(v.ID))
	if err != nil {
		return err
	}
	if a.Data() {
		return a.Print(ports)
	}
	showDoors(a, v.Name, ports.Doors)
	return nil
}

func showDoors(a *app.App, name string, doors []api.Door) {
	if len(doors) == 0 {
		a.Hint("no port leads to %s: one is added by `banger vm port add %s 8080:80`", name, name)
		return
	}
	p := a.IO.OutPalette()
	rows := make([][]term.Cell, len(doors))
	for i, d := range doors {
		state := term.Cell{Text: string(d.State)}
		switch {
		case d.Error != nil:
			state = term.Cell{Text: string(d.State) + ": " + d.Error.Msg, Style: p.Red}
		case d.State == api.DoorOpen:
			state.Style = p.Green
		}
		rows[i] = []term.Cell{term.Text(hostPort(d.Address, d.HostPort)), term.Text(strconv.Itoa(d.GuestPort)), state}
	}
	term.Table(a.IO.Out, p, []string{"HOST", "GUEST PORT", "STATE"}, rows)
}

func hostPort(address string, port int) string {
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return address + ":" + strconv.Itoa(port)
}

func newPortList(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "list NAME", Aliases: []string{"ls"}, Short: "List the ports of the host that lead to a VM, and what listens in it",
		Long: `List the ports of the host that lead to a VM, and the TCP ports that are listened on in it: on which address, by which
program, and where on the host each can be reached.`,
		Example: `  banger vm port list dev
  banger vm port list dev -o json | jq '.listening[].port'`,
		Args:              app.Args(1, 1),
		Annotations:       app.ListsNames(),
		ValidArgsFunction: a.Complete(1, app.VMs),
		RunE: run(func(ctx context.Context, args []string) error {
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			ports, err := c.Ports(ctx, args[0])
			if err != nil {
				return err
			}
			switch a.Output {
			case app.JSON, app.Formatted:
				return a.Print(ports)
			case app.Names:
				for _, d := range ports.Doors {
					fmt.Fprintln(a.IO.Out, term.Escape(d.Spec))
				}
			case app.Table:
				showDoors(a, args[0], ports.Doors)
				showListeners(a, ports)
			}
			return nil
		}),
	}
}

func showListeners(a *app.App, ports api.Ports) {
	if ports.Error != nil {
		a.Hint("what listens in it is not known: %s", ports.Error.Msg)
		if ports.Error.Hint != "" {
			a.Hint("%s", ports.Error.Hint)
		}
	}
	if len(ports.Listening) == 0 {
		return
	}
	if len(ports.Doors) > 0 {
		fmt.Fprintln(a.IO.Out)
	}
	rows := make([][]term.Cell, len(ports.Listening))
	for i, l := range ports.Listening {
		program := l.Program
		if l.PID > 0 {
			program += " (" + strconv.Itoa(l.PID) + ")"
		}
		rows[i] = []term.Cell{term.Text(hostPort(l.Address, l.Port)), term.Text(program), term.Text(l.Door)}
	}
	term.Table(a.IO.Out, a.IO.OutPalette(), []string{"LISTENS IN THE GUEST", "PROGRAM", "HOST"}, rows)
	if ports.More > 0 {
		a.Hint("and %d more", ports.More)
	}
}

func newPortRemove(a *app.App) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "remove NAME PORT...", Aliases: []string{"rm"}, Short: "Have ports of the host lead to a VM no more",
		Long: `Have ports of the host lead to a VM no more; what is connected through them is cut off. A PORT is named by its host
port, by where it listens, or as it was added.`,
		Example: `  banger vm port remove dev 8080
  banger vm port remove dev 0.0.0.0:8443 '[::1]:8080:80'
  banger vm port remove dev 8080 --dry-run`,
		Args:              app.Args(2, -1),
		ValidArgsFunction: completeDoor(a),
		RunE: run(func(ctx context.Context, args []string) error {
			text := "-" + strings.Join(args[1:], ",-")
			if dryRun {
				return planPorts(ctx, a, args[0], text)
			}
			return setPorts(ctx, a, args[0], text)
		}),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	return cmd
}

// doorsOf are a VM's doors, as it has them in its settings.
func doorsOf(v api.VM) nouns.Doors { return nouns.DoorsOf(nouns.VM{Settings: v.Settings}) }

func planPorts(ctx context.Context, a *app.App, name, text string) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	v, err := c.VM(ctx, name)
	if err != nil {
		return err
	}
	before := doorsOf(v)
	after, err := before.Alter(text)
	if err != nil {
		return err
	}
	gone := []string{}
	for _, d := range before {
		if !slices.Contains(after, d) {
			gone = append(gone, d.String())
		}
	}
	if a.Data() {
		return a.Print(gone)
	}
	for _, d := range gone {
		fmt.Fprintf(a.IO.Out, "would remove port %s of %s\n", d, term.Escape(v.Name))
	}
	return nil
}

// completeDoor completes a VM's name and then its ports.
func completeDoor(a *app.App) cobra.CompletionFunc {
	first := a.Complete(1, app.VMs)
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return first(cmd, args, begun)
		}
		return a.Complete(-1, func(ctx context.Context, c *client.Client) ([]string, error) {
			v, err := c.VM(ctx, args[0])
			var words []string
			for _, d := range doorsOf(v) {
				words = append(words, d.String())
			}
			return words, err
		})(cmd, args, begun)
	}
}
