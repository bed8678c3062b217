package vm

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
	nouns "banger/internal/vm"
)

type setOptions struct {
	manner
	name     string
	vcpu     count
	memory   size
	rootDisk size
	workDisk size
	restart  string
	network  networkFlags
	labels   []string
	others   []string
}

func newSet(a *app.App) *cobra.Command {
	s := selection{flag: "selector"}
	var o setOptions
	cmd := &cobra.Command{
		Use:   "set NAME...",
		Short: "Change VMs: memory, vCPUs, disks, name, labels, network, restart policy",
		Long: `Change what is asked of VMs, several at once. A VM that runs takes at once what it can: memory up to what it was
booted with, larger disks, labels, its name, what it may do on the network, the restart policy. The rest waits for
its next start, and 'banger vm show' says so. Disks never shrink. What it may do on the network is left to the
configuration of the daemon again by --isolated, --nat, --nat6, --egress and --allow default.`,
		Example: `  banger vm set dev --memory 4G --vcpu 4
  banger vm set dev --work-disk 100G
  banger vm set dev --name website --label project=website --label draft-
  banger vm set --selector ci --restart always
  banger vm set dev --egress list --allow +proxy.example.com
  banger vm set dev --isolated on --nat default
  banger vm set --all --memory 1G --dry-run`,
		RunE: run(func(ctx context.Context, names []string) error {
			return setVMs(ctx, a, &s, names, o)
		}),
	}
	s.on(cmd, a)
	o.waits(cmd)
	o.plans(cmd)
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "call it `NAME` from now on; of one VM only")
	f.Var(&o.vcpu, "vcpu", "number of vCPUs, from its next start on")
	f.Var(&o.memory, "memory", "memory, such as 2G; more than it was booted with from its next start on")
	f.Var(&o.rootDisk, "root-disk", "size of the root disk, no less than it is")
	f.Var(&o.workDisk, "work-disk", "size of the disk at /root, no less than it is")
	f.StringVar(&o.restart, "restart", "", "`POLICY` always or no: start it again when it is down though nobody stopped it")
	o.network.on(cmd)
	f.StringArrayVar(&o.labels, "label", nil, "label it `KEY=VALUE`, or take the label away by KEY-; may be repeated")
	f.StringArrayVar(&o.others, "set", nil, "a setting of another feature of the daemon's, `KEY=VALUE`; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions(nouns.Restarts(), cobra.ShellCompDirectiveNoFileComp))
	for _, free := range []string{"name", "set"} {
		_ = cmd.RegisterFlagCompletionFunc(free, cobra.NoFileCompletions)
	}
	return cmd
}

func setVMs(ctx context.Context, a *app.App, s *selection, names []string, o setOptions) error {
	r, err := o.request()
	if err != nil {
		return err
	}
	if o.name != "" && len(names) != 1 {
		return fault.New(fault.Invalid, "only one VM can have it").WithOp("read --name", o.name).WithHint("name one VM")
	}
	if o.dryRun {
		return planSet(ctx, a, s, names, r)
	}
	return many(ctx, a, s, names, verb{
		name: "set", past: "is set",
		begin: func(ctx context.Context, c *client.Client, id string) (op.Operation, error) {
			return c.SetVM(ctx, id, r)
		},
		after: func(ctx context.Context, c *client.Client, id string) {
			if o.noWait || len(o.network.allow) == 0 {
				return
			}
			if v, err := c.VM(ctx, id); err == nil { // one that cannot be asked is changed all the same
				hintAllow(a, v)
			}
		},
	}, o.manner)
}

// request is what the flags ask for.
func (o setOptions) request() (api.SetVM, error) {
	r := api.SetVM{Settings: map[string]string{}}
	for _, pair := range o.others {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return r, fault.New(fault.Invalid, "it has no '='").WithOp("read --set", pair).WithHint("write KEY=VALUE")
		}
		r.Settings[key] = value
	}
	for key, value := range map[string]string{
		"name": o.name, "restart": o.restart, "vcpu": o.vcpu.String(),
		"memory": bytesText(o.memory), "root_disk": bytesText(o.rootDisk), "work_disk": bytesText(o.workDisk),
	} {
		if value != "" {
			r.Settings[key] = value
		}
	}
	o.network.settings(r.Settings)
	if len(o.labels) > 0 {
		r.Labels = map[string]*string{}
	}
	for _, text := range o.labels {
		key, value, ok := strings.Cut(text, "=")
		switch {
		case ok:
			r.Labels[key] = &value
		case strings.HasSuffix(text, "-"):
			r.Labels[strings.TrimSuffix(text, "-")] = nil
		default:
			return r, fault.New(fault.Invalid, "it is neither KEY=VALUE nor KEY-").WithOp("read --label", text).
				WithHint("write KEY=VALUE, such as project=website, or KEY- to take the label away")
		}
	}
	if len(r.Settings)+len(r.Labels) == 0 {
		return r, fault.New(fault.Invalid, "it is not said what to change").WithOp("banger vm set", "").
			WithHint("such as `banger vm set dev --memory 4G`; see `banger vm set --help`")
	}
	return r, nil
}

// bytesText is a size as the API reads it to the byte; empty for one that was not given.
func bytesText(s size) string {
	if s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// plan is what --dry-run prints as JSON, for each VM.
type plan struct {
	Name    string        `json:"name"`
	ID      nouns.ID      `json:"id"`
	Changes []api.Altered `json:"changes"`
}

// planSet tells what would change, and nothing does.
func planSet(ctx context.Context, a *app.App, s *selection, names []string, r api.SetVM) error {
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	targets, err := s.targets(ctx, a, c, names)
	if err == nil {
		err = firstError(targets)
	}
	if err != nil {
		return err
	}
	plans := []plan{}
	for _, t := range targets {
		changes, err := c.PlanVM(ctx, string(t.vm.ID), r)
		if err != nil {
			return err
		}
		plans = append(plans, plan{t.vm.Name, t.vm.ID, changes})
	}
	if a.Data() {
		return a.Print(plans)
	}
	for _, p := range plans {
		if len(p.Changes) == 0 {
			a.Hint("%s is so already", p.Name)
		}
		for _, x := range p.Changes {
			line := fmt.Sprintf("would set %s of %s from %s to %s", x.Key, p.Name, shownValue(x.From), shownValue(x.To))
			if x.Restart != "" {
				line += ", from its next start on: " + x.Restart
			}
			fmt.Fprintln(a.IO.Out, term.Escape(line))
		}
	}
	return nil
}

func shownValue(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}
