package labcmd

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/fault"
)

// refusalTries is how often each address is connected to.
const refusalTries = 41

// refusals tells how long it takes to be refused. Scripts run it in guests.
func refusals() *cobra.Command {
	return &cobra.Command{
		Use: "refusals CLOSED OTHER", Short: "Tell how much longer one address takes to refuse a connection than another", Args: cobra.ExactArgs(2), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			dialer := net.Dialer{Timeout: 10 * time.Second}
			took := make([][]time.Duration, len(args))
			for range refusalTries {
				for i, address := range args { // by turns, so that what disturbs one disturbs the other
					begun := time.Now()
					conn, err := dialer.DialContext(cmd.Context(), "tcp", address)
					took[i] = append(took[i], time.Since(begun))
					if err == nil {
						_ = conn.Close()
					}
					if !errors.Is(err, syscall.ECONNREFUSED) {
						return fault.New(fault.GuestFailed, "it is not refused: %v", err).WithOp("connect to", address)
					}
				}
			}
			median := func(all []time.Duration) time.Duration { slices.Sort(all); return all[len(all)/2] }
			closed, other := median(took[0]), median(took[1])
			ratio := strconv.FormatFloat(float64(other)/float64(closed), 'f', 2, 64)
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %v, %s %v, ratio %s\n", args[0], closed, args[1], other, ratio)
			return err
		},
	}
}
