package vm

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	nouns "banger/internal/vm"
)

func newShow(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show everything about a VM, with the paths of its logs",
		Args:  app.Args(1, 1),
		RunE: run(func(ctx context.Context, args []string) error {
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			v, err := c.VM(ctx, args[0])
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(v)
			}
			show(a, v)
			return nil
		}),
		ValidArgsFunction: a.Complete(1, app.VMs),
	}
}

func show(a *app.App, v api.VM) {
	p, now := a.IO.OutPalette(), time.Now()
	state := string(v.State)
	if v.Reason != "" {
		state += " (" + v.Reason + ")"
	}
	pid, started := "", ""
	if v.PID > 0 {
		pid = strconv.Itoa(v.PID)
	}
	if !v.Started.IsZero() {
		started = stamp(v.Started, now)
	}
	term.Fields(a.IO.Out, p,
		term.Text("name"), term.Cell{Text: v.Name, Style: p.Bold},
		term.Text("id"), term.Text(string(v.ID)),
		term.Text("state"), term.Cell{Text: state, Style: stateStyle(p, v.State)},
		term.Text("image"), term.Text(fmt.Sprintf("%s (%s)", v.Image.Name, v.Image.ID)),
		term.Text("vCPUs"), term.Text(strconv.Itoa(v.Spec.VCPU)),
		term.Text("memory"), term.Text(nouns.FormatSize(v.Spec.Memory)),
		term.Text("root disk"), term.Text(strings.TrimSuffix(nouns.FormatSize(v.Spec.RootDisk)+", "+v.RootBackend, ", ")),
		term.Text("work disk"), term.Text(nouns.FormatSize(v.Spec.WorkDisk)+" at /root"),
		term.Text("restart"), term.Text(v.Restart),
		term.Text("at next start"), term.Text(strings.Join(v.Pending, ", ")),
		term.Text("time zone"), term.Text(v.Timezone),
		term.Text("locale"), term.Text(v.Locale),
		term.Text("address"), term.Text(strings.TrimSpace(v.Address+" "+v.Address6)),
		term.Text("MAC"), term.Text(v.MAC),
		term.Text("host key"), term.Text(v.HostKey),
		term.Text("network"), term.Text(policyText(v.Policy)),
		term.Text("allowed"), term.Text(allowText(v.Policy)),
		term.Text("ports"), term.Text(strings.ReplaceAll(v.Settings[nouns.SettingPorts], ",", ", ")),
		term.Text("labels"), term.Text(labelText(v.Labels)),
		term.Text("owner"), term.Text("uid "+strconv.Itoa(v.Owner)),
		term.Text("created"), term.Text(stamp(v.Created, now)),
		term.Text("started"), term.Text(started),
		term.Text("booted"), term.Text(booted(v)),
		term.Text("hypervisor pid"), term.Text(pid),
		term.Text("directory"), term.Text(v.Dir),
		term.Text("console log"), term.Text(v.Logs.Console),
		term.Text("firecracker log"), term.Text(v.Logs.Firecracker),
	)
}

// booted says how a VM that runs came to run, where that needs saying.
func booted(v api.VM) string {
	if v.Warm {
		return "no: it went on from a golden snapshot of its image"
	}
	return ""
}

func stamp(t, now time.Time) string {
	return t.Local().Format("2006-01-02 15:04:05") + " (" + term.Ago(t, now) + ")"
}
