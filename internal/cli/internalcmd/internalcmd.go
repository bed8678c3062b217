// Package internalcmd holds commands that banger runs itself, not people.
package internalcmd

import (
	"errors"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/fdpass"
)

// New returns `banger internal`.
func New(a *app.App) *cobra.Command {
	cmd := app.Group("internal", "Commands that banger runs itself", newSSHProxy(a))
	cmd.Hidden = true
	return cmd
}

// newSSHProxy is ssh's ProxyCommand, with ProxyUseFdpass: it hands ssh a connection to the SSH server of the guest's agent over its
// standard output, and ends. It does not start or upgrade a daemon: the command that ran ssh has just spoken to it.
func newSSHProxy(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh-proxy ID",
		Short: "Hand ssh a connection to a guest's SSH server",
		Args:  app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := a.SocketPath()
			if err != nil {
				return err
			}
			conn, err := client.New(socket).SSH(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			return hand(a.IO.Out, conn)
		},
	}
}

// hand gives away a file over out, which is to be a Unix socket.
func hand(out io.Writer, file *os.File) error {
	no := func(err error) error {
		return fault.New(fault.Invalid, "%w", err).WithOp("hand over a connection", "").
			WithHint("run it as ssh's ProxyCommand, with ProxyUseFdpass yes")
	}
	f, ok := out.(*os.File)
	if !ok {
		return no(errors.New("standard output is no file"))
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return no(err)
	}
	defer conn.Close()
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return no(errors.New("standard output is no Unix socket"))
	}
	return fdpass.Send(u, file)
}
