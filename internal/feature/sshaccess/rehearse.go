package sshaccess

import (
	"context"
	"fmt"
	"io"
	"net"

	"golang.org/x/crypto/ssh"

	"banger/internal/vm"
)

// Rehearse logs in twice over a connection to the agent's SSH server, for a command and with a terminal. Who may log in is the template itself, with its host key:
// both are gone once a guest that goes on from it has taken up its identity.
func (Feature) Rehearse(ctx context.Context, v vm.VM, connect func(ctx context.Context) (net.Conn, error)) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	client, err := login(conn, v.Access)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // nothing depends on it any more
	if err := session(client, func(s *ssh.Session) error { return s.Run("true") }); err != nil {
		return fmt.Errorf("run a command: %w", err)
	}
	return session(client, func(s *ssh.Session) error {
		in, err := s.StdinPipe()
		if err != nil {
			return err
		}
		if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
			return err
		}
		if err := s.Shell(); err != nil {
			return err
		}
		_, _ = io.WriteString(in, "exit\n") // a shell that has ended already needs none
		return s.Wait()
	})
}

func login(conn net.Conn, access vm.Access) (*ssh.Client, error) {
	signer, err := ssh.ParsePrivateKey([]byte(access.HostKeyPrivate))
	if err != nil {
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, "guest", &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(signer.PublicKey()),
	})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

func session(client *ssh.Client, work func(*ssh.Session) error) error {
	s, err := client.NewSession()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // it has ended
	return work(s)
}
