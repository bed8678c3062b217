package internalcmd

import (
	"os"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/daemonstart"
	"banger/internal/fault"
	"banger/internal/vm"
)

// newNAT turns a guest's NAT on and off by the kernel's tables alone, where no daemon answers. It is bangerd's program that
// knows them.
func newNAT() *cobra.Command {
	return app.Group("nat", "Let the guest behind a TAP out by the host's addresses, without a daemon",
		natTurn("up", "Let it out"), natTurn("down", "Do not, also where the TAP is gone"))
}

func natTurn(turn, short string) *cobra.Command {
	return &cobra.Command{
		Use:   turn + " TAP",
		Short: short,
		Args:  app.Args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, ok := vm.TagOf(args[0]); !ok {
				return fault.New(fault.Invalid, "it is no VM's TAP").WithOp("set NAT of", args[0]).WithHint("such as bt1a2b-0123abcd: see `ip link`")
			}
			if os.Geteuid() != 0 {
				return fault.New(fault.Forbidden, "it needs root").WithOp("set NAT of", args[0]).WithHint("run it with sudo, or use `banger vm set NAME --nat on`")
			}
			return daemonstart.Become("nat", turn, args[0])
		},
	}
}
