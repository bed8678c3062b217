package image

import (
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/vm"
)

func newWarm(a *app.App) *cobra.Command {
	var vcpu int
	var memory string
	var noWait bool
	cmd := &cobra.Command{
		Use:   "warm NAME",
		Short: "Prepare a snapshot that creates of an image go on from",
		Long: `Boot a machine of an image that is nobody's, wait until it has settled, and keep a snapshot of it.
Creates of this image, with these vCPUs and this much memory, go on from that instead of booting.

The daemon does so by itself after the first create of its kind, unless its configuration says
warm = "off". What is there already is not made anew.`,
		Example: "  banger image warm debian:12\n  banger image warm debian:12 --vcpu 4 --memory 8G",
		Args:    app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			cfg, err := a.Config()
			if err != nil {
				return err
			}
			r := api.WarmImage{VCPU: cfg.VM.VCPU, Memory: cfg.VM.Memory}
			if vcpu != 0 {
				r.VCPU = vcpu
			}
			if memory != "" {
				if r.Memory, err = vm.ParseSize(memory); err != nil {
					return err
				}
			}
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			begun, err := c.WarmImage(ctx, args[0], r)
			if err != nil {
				return err
			}
			if noWait {
				return a.Begun(begun)
			}
			final, err := a.Follow(ctx, c, begun)
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(final)
			}
			fmt.Fprintf(a.IO.Out, "%s is warm (%s)\n", a.IO.OutPalette().Bold(term.Escape(final.Name)), term.Duration(final.Ended.Sub(final.Created)))
			return nil
		},
		ValidArgsFunction: a.Complete(1, app.Images),
	}
	f := cmd.Flags()
	f.IntVar(&vcpu, "vcpu", 0, "number of vCPUs of the VMs that are to go on from it")
	f.StringVar(&memory, "memory", "", "their memory, such as `2G`")
	f.BoolVar(&noWait, "no-wait", false, "print the operation's id and return")
	return cmd
}
