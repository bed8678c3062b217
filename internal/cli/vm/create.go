package vm

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/sshconfig"
	"banger/internal/cli/term"
	"banger/internal/fault"
	"banger/internal/op"
	nouns "banger/internal/vm"
)

type createOptions struct {
	name     string
	image    string
	vcpu     count
	memory   size
	rootDisk size
	workDisk size
	timezone string
	locale   string
	restart  string
	labels   []string
	ports    []string
	network  networkFlags
	cold     bool
	noWait   bool
}

func newCreate(a *app.App) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Make a VM and boot it",
		Long: `Make a VM from an image, boot it, and show each stage until the guest is ready.

Where a snapshot of a booted guest of this image and size is prepared, the VM goes on from that and
is there at once; else it is booted, and one is prepared for the next. Without a NAME it gets a
readable random one. Ctrl-C leaves the operation running and says how to follow it or call it off.
What is not given comes from the configuration, then from the daemon.`,
		Example: `  banger vm create dev
  banger vm create --image debian:13 --vcpu 4 --memory 8G --work-disk 50G big
  banger vm create --label project=website --label branch=main
  banger vm create -p 8080:80 -p :5432 web
  banger vm create --egress list --allow registry.example.com --allow '*.example.org' agent
  banger vm create ci-1 -o json | jq -r .vm.id`,
		Args: app.Args(0, 1),
		RunE: run(func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				o.name = args[0]
			}
			return create(ctx, a, o)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&o.image, "image", "", "`IMAGE` to make it from: a name, an id or a prefix of one")
	f.Var(&o.vcpu, "vcpu", "number of vCPUs")
	f.Var(&o.memory, "memory", "memory, such as 2G")
	f.Var(&o.rootDisk, "root-disk", "size of the root disk, at least the image's")
	f.Var(&o.workDisk, "work-disk", "size of the disk at /root")
	f.StringVar(&o.timezone, "timezone", "", "`ZONE` such as Europe/Rome")
	f.StringVar(&o.locale, "locale", "", "`LOCALE` such as C.UTF-8")
	f.StringVar(&o.restart, "restart", "no", "`POLICY` for when it is down though nobody stopped it, also after a reboot of the host: no or always")
	f.StringArrayVar(&o.labels, "label", nil, "label it `KEY=VALUE`; may be repeated")
	f.StringArrayVarP(&o.ports, "publish", "p", nil, "have a port of the host lead to one of its: `[[ADDRESS:]HOST:]GUEST`, such as 8080:80; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("publish", cobra.NoFileCompletions)
	o.network.on(cmd)
	f.BoolVar(&o.cold, "cold", false, "boot it, also where a prepared snapshot could be gone on from")
	f.BoolVar(&o.noWait, "no-wait", false, "print the operation's id and return")
	for _, free := range []string{"timezone", "locale"} {
		_ = cmd.RegisterFlagCompletionFunc(free, cobra.NoFileCompletions)
	}
	_ = cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions(nouns.Restarts(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("image", a.Complete(-1, app.Images)) // fails only for a flag that is not there
	return cmd
}

// created is what create prints as JSON.
type created struct {
	VM        api.VM       `json:"vm"`
	Operation op.Operation `json:"operation"`
}

func create(ctx context.Context, a *app.App, o createOptions) error {
	if o.name != "" {
		if err := nouns.CheckName(o.name); err != nil {
			return err
		}
	}
	if _, err := nouns.ParseRestart(o.restart); err != nil {
		return err
	}
	labels, err := parseLabels(o.labels)
	if err != nil {
		return err
	}
	settings := map[string]string{}
	if len(o.ports) > 0 {
		if settings[nouns.SettingPorts], err = portsText("", o.ports); err != nil {
			return err
		}
	}
	key, err := a.Key()
	if err != nil {
		return err
	}
	cfg, err := a.Config()
	if err != nil {
		return err
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	o.network.settings(settings)
	begun, err := c.CreateVM(ctx, api.CreateVM{
		Name:           o.name,
		Image:          either(o.image, cfg.VM.Image),
		Labels:         labels,
		VCPU:           either(int(o.vcpu), cfg.VM.VCPU),
		Memory:         either(int64(o.memory), cfg.VM.Memory),
		RootDisk:       either(int64(o.rootDisk), cfg.VM.RootDisk),
		WorkDisk:       either(int64(o.workDisk), cfg.VM.WorkDisk),
		Timezone:       either(o.timezone, cfg.VM.Timezone),
		Locale:         either(o.locale, cfg.VM.Locale),
		Restart:        o.restart,
		Settings:       settings,
		Cold:           o.cold,
		AuthorizedKeys: []string{key.Public},
	})
	if err != nil {
		return err
	}
	if o.noWait {
		return a.Begun(begun)
	}
	final, err := a.Follow(ctx, c, begun)
	if err != nil {
		return err
	}
	v, err := c.VM(ctx, final.Subject)
	if err != nil {
		return err
	}
	if a.Data() {
		return a.Print(created{v, final})
	}
	p := a.IO.OutPalette()
	fmt.Fprintf(a.IO.Out, "%s is running (%s)\n", p.Bold(term.Escape(v.Name)), term.Duration(final.Ended.Sub(final.Created)))
	for _, d := range doorsOf(v) {
		fmt.Fprintf(a.IO.Out, "%s leads to its port %d\n", d.Listen, d.Port)
	}
	if len(o.network.allow) > 0 {
		hintAllow(a, v)
	}
	fmt.Fprintf(a.IO.Out, "next: %s\n", p.Cyan(term.Escape(sshconfig.Login(a, v.Name))))
	return nil
}

// either is the flag when it was given, else what the configuration says.
func either[T comparable](flag, configured T) T {
	var zero T
	if flag != zero {
		return flag
	}
	return configured
}

func parseLabels(pairs []string) (map[string]string, error) {
	labels := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fault.New(fault.Invalid, "it has no '='").WithOp("read --label", pair).WithHint("write KEY=VALUE, such as project=website")
		}
		labels[k] = v
	}
	return labels, nouns.CheckLabels(labels)
}
