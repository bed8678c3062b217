// Package sshserver is SSH as the agent serves it: to the host, over vsock, in any guest. It needs neither an sshd nor a
// network in there, forks nothing but what is asked for, and so answers a good deal sooner than sshd.
//
// Who may come in as whom is in the account's ~/.ssh/authorized_keys. Host key, accounts, shells and environment are those of an
// sshd with default settings, too. Its own settings are not read, and there is no PAM.
package sshserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Bounds of one connection.
const (
	handshakeBudget = 30 * time.Second
	maxChannels     = 64 // that are open at once, sessions and forwarded connections together; each may hold 2 MiB
	maxListeners    = 32 // ports and sockets that are forwarded back
)

// Server serves connections. All fields are required.
type Server struct {
	Root string // where the files are that it reads, "/"
	SFTP []string
	// Start starts a command of a session.
	Start func(cmd *exec.Cmd) error
	Log   *slog.Logger
}

// Open returns what serves one connection until it ends or ctx does, and closes it. Without a host key nobody is served.
func (s *Server) Open() (func(ctx context.Context, nc net.Conn), error) {
	hostKey, err := s.hostKey()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, nc net.Conn) {
		defer nc.Close()
		stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
		defer stop()
		if err := s.serve(ctx, nc, hostKey); err != nil {
			s.Log.Info("ssh connection", "error", err)
		}
	}, nil
}

func (s *Server) serve(ctx context.Context, nc net.Conn, hostKey ssh.Signer) error {
	if err := nc.SetDeadline(time.Now().Add(handshakeBudget)); err != nil {
		return err
	}
	config := &ssh.ServerConfig{ServerVersion: "SSH-2.0-banger", PublicKeyCallback: s.authorize}
	config.AddHostKey(hostKey)
	sc, channels, requests, err := ssh.NewServerConn(nc, config)
	if err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	who, err := s.account(sc.User())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &conn{server: s, ssh: sc, who: who, open: make(chan struct{}, maxChannels), listeners: make(map[string]net.Listener)}
	c.work.Go(func() { c.global(ctx, requests) })
	for n := range channels {
		select {
		case c.open <- struct{}{}:
			c.work.Go(func() {
				defer func() { <-c.open }()
				c.channel(ctx, n)
			})
		default:
			_ = n.Reject(ssh.ResourceShortage, fmt.Sprintf("%d channels are open already", maxChannels))
		}
	}
	cancel()
	c.work.Wait()
	return nil
}

// conn is one connection of somebody who has been let in.
type conn struct {
	server *Server
	ssh    *ssh.ServerConn
	who    account
	open   chan struct{} // holds a token for each channel
	work   sync.WaitGroup

	mu        sync.Mutex
	listeners map[string]net.Listener // by what the client calls them
}

// channel serves one that the client opens, until it is closed.
func (c *conn) channel(ctx context.Context, n ssh.NewChannel) {
	switch n.ChannelType() {
	case "session":
		c.session(ctx, n)
	case "direct-tcpip":
		c.directTCP(ctx, n)
	case "direct-streamlocal@openssh.com":
		c.directUnix(ctx, n)
	default:
		_ = n.Reject(ssh.UnknownChannelType, "it is not served here")
	}
}
