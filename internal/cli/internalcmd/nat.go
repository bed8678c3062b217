package internalcmd

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/fault"
	"banger/internal/host/firewall"
	"banger/internal/vm"
)

// newNAT turns a guest's NAT on and off without a daemon: by the same tables, in the kernel.
func newNAT() *cobra.Command {
	cmd := app.Group("nat", "Let the guest behind a TAP out by the host's addresses, without a daemon")
	for name, on := range map[string]bool{"up": true, "down": false} {
		cmd.AddCommand(&cobra.Command{
			Use:   name + " TAP",
			Short: map[bool]string{true: "Let it out", false: "Do not, also where the TAP is gone"}[on],
			Args:  app.Args(1, 1),
			RunE:  func(cmd *cobra.Command, args []string) error { return setNAT(cmd.Context(), args[0], on) },
		})
	}
	return cmd
}

func setNAT(ctx context.Context, tap string, on bool) error {
	tag, ok := vm.TagOf(tap)
	if !ok {
		return fault.New(fault.Invalid, "it is no VM's TAP").WithOp("set NAT of", tap).WithHint("such as bt1a2b-0123abcd: see `ip link`")
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "it needs root").WithOp("set NAT of", tap).WithHint("run it with sudo, or use `banger vm set NAME --nat on`")
	}
	return firewall.New(tag).SetNAT(ctx, tap, on)
}
