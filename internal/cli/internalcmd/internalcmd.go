// Package internalcmd holds commands that banger runs itself, not people.
package internalcmd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/ssh"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/fdpass"
)

// New returns `banger internal`.
func New(a *app.App) *cobra.Command {
	cmd := app.Group("internal", "Commands that banger runs itself", newSSHProxy(a), newKnownHosts(a), newNAT())
	cmd.Hidden = true
	return cmd
}

// named is what a host's name below .vm selects. As in DNS, what stands below a VM's name is that VM too.
func named(host string) string {
	name, ok := strings.CutSuffix(host, ssh.Suffix)
	if !ok {
		return host
	}
	return name[strings.LastIndexByte(name, '.')+1:]
}

// newSSHProxy is ssh's ProxyCommand, with ProxyUseFdpass: it hands ssh a connection to the SSH server of the guest's agent over its
// standard output, and ends. It does not start or upgrade a daemon: a way in has to be quick.
func newSSHProxy(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh-proxy ID|NAME.vm",
		Short: "Hand ssh a connection to a guest's SSH server",
		Args:  app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := a.SocketPath()
			if err != nil {
				return err
			}
			conn, err := client.New(socket).SSH(cmd.Context(), named(args[0]))
			if err != nil {
				return app.Unreachable(socket, err)
			}
			defer conn.Close()
			return hand(a.IO.Out, conn)
		},
	}
}

// newKnownHosts is ssh's KnownHostsCommand. The host key is asked for anew each time, so it is no other machine's, whatever VM
// had the name before.
func newKnownHosts(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "known-hosts NAME.vm",
		Short: "Print a guest's host key for ssh",
		Args:  app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := a.SocketPath()
			if err != nil {
				return err
			}
			v, err := client.New(socket).VM(cmd.Context(), named(args[0]))
			if err != nil {
				return app.Unreachable(socket, err)
			}
			line, err := ssh.KnownHost(v.Name, v.HostKey)
			if err != nil {
				return err
			}
			fmt.Fprint(a.IO.Out, line)
			return nil
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
