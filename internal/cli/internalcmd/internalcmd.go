// Package internalcmd holds commands that banger runs itself, not people.
package internalcmd

import (
	"io"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/client"
)

// New returns `banger internal`.
func New(a *app.App) *cobra.Command {
	cmd := app.Group("internal", "Commands that banger runs itself", newSSHProxy(a))
	cmd.Hidden = true
	return cmd
}

// newSSHProxy is ssh's ProxyCommand: it joins the standard streams to the SSH server of the guest's agent. It does
// not start or upgrade a daemon: the command that ran ssh has just spoken to it.
func newSSHProxy(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh-proxy ID",
		Short: "Join standard input and output to a guest's SSH server",
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
			return join(conn, a.IO.In, a.IO.Out)
		},
	}
}

type writeCloser interface{ CloseWrite() error }

// join copies both ways. It ends when the guest does: ssh closing its side first is passed on, and
// what the guest still has to say is delivered.
func join(conn io.ReadWriter, in io.Reader, out io.Writer) error {
	go func() {
		_, err := io.Copy(conn, in)
		if half, ok := conn.(writeCloser); ok && err == nil {
			_ = half.CloseWrite() // the copy back tells when the connection is gone
		}
	}()
	_, err := io.Copy(out, conn)
	return err
}
