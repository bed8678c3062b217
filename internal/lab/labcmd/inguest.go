package labcmd

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/client"
	"banger/internal/config"
	"banger/internal/fault"
	"banger/internal/lab/tinyroot"
)

// outputLimit bounds what a test's command may print, in bytes.
const outputLimit = 1 << 20

// reachBudget is how long a guest's shell may take to listen, from its init's start.
const reachBudget = 30 * time.Second

// reach dials a guest's shell, which listens some time after its VM is ready.
func reach(ctx context.Context, c *client.Client, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, reachBudget)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := c.Dial(ctx, name, tinyroot.ShellPort)
		if err == nil || fault.CodeOf(err) != fault.Unavailable {
			return conn, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// inGuest runs commands in the guests that have no SSH server: those made for tests listen with a
// shell instead.
func inGuest() *cobra.Command {
	return &cobra.Command{
		Use: "in-guest VM COMMAND...", Short: "Run a shell command in a test's guest", Args: cobra.MinimumNArgs(2), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Load("")
			if err != nil {
				return err
			}
			conn, err := reach(cmd.Context(), client.New(c.Socket), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			// A subshell: what exits in it must not take the report of its status along.
			if _, err := fmt.Fprintf(conn, "(\n%s\n) 2>&1 </dev/null; echo \"status $?\"; exit\n", strings.Join(args[1:], " ")); err != nil {
				return err
			}
			said, err := io.ReadAll(io.LimitReader(conn, outputLimit))
			if err != nil {
				return err
			}
			text := strings.TrimSuffix(string(said), "\n")
			at := strings.LastIndex(text, "status ")
			if at < 0 {
				return fault.New(fault.GuestFailed, "it went away while it ran: %q", text).WithOp("run in guest", args[0])
			}
			fmt.Fprint(os.Stdout, text[:at])
			status, err := strconv.Atoi(text[at+len("status "):])
			if err == nil && status != 0 {
				return exitError(status)
			}
			return err
		},
	}
}
