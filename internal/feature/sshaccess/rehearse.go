package sshaccess

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"

	"golang.org/x/crypto/ssh"

	"banger/internal/agentproto"
	"banger/internal/feature"
	"banger/internal/vm"
)

// service is how an image names its sshd.
const service = "ssh"

// Rehearse logs in twice, for a command and with a terminal. Who may log in is the template itself, with its host key:
// both are gone once a guest that goes on from it has taken up its identity.
func (Feature) Rehearse(ctx context.Context, v vm.VM, b feature.Blueprint, dial func(ctx context.Context, host string, port int) (net.Conn, error)) error {
	i := slices.IndexFunc(b.Guest.Services, func(s agentproto.Service) bool { return s.Name == service })
	if i < 0 {
		return nil
	}
	conn, err := dial(ctx, "127.0.0.1", b.Guest.Services[i].Port)
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
