package cli_test

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"

	"banger/internal/fault"
	"banger/internal/sshkey"
)

// guest is the SSH server of a VM's agent, behind the fake daemon.
type guest struct {
	host    ssh.Signer
	hostKey string // public, authorized_keys form
}

func newGuest() (guest, error) {
	pair, err := sshkey.New("guest")
	if err != nil {
		return guest{}, err
	}
	host, err := ssh.ParsePrivateKey([]byte(pair.Private))
	return guest{host, pair.Public}, err
}

// serve lets root in with one of the keys. A command is not run but said back; "exit N" at its end
// sets its status, and "crash" ends the guest instead.
func (g guest) serve(conn net.Conn, keys []string, crash func()) error {
	defer conn.Close()
	config := &ssh.ServerConfig{PublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		for _, k := range keys {
			if m.User() == "root" && sshkey.Same(k, string(ssh.MarshalAuthorizedKey(key))) {
				return &ssh.Permissions{}, nil
			}
		}
		return nil, fault.New(fault.Forbidden, "unknown key")
	}}
	config.AddHostKey(g.host)
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		if err := session(c, crash); err != nil {
			return err
		}
	}
	return nil
}

func session(c ssh.NewChannel, crash func()) error {
	ch, requests, err := c.Accept()
	if err != nil {
		return err
	}
	for r := range requests {
		if err := r.Reply(r.Type == "exec" || r.Type == "pty-req", nil); err != nil {
			return err
		}
		if r.Type != "exec" {
			continue
		}
		var exec struct{ Line string }
		if err := ssh.Unmarshal(r.Payload, &exec); err != nil {
			return err
		}
		if exec.Line == "crash" {
			crash()
			return errors.New("the guest is gone")
		}
		var status struct{ N uint32 }
		if _, after, ok := strings.Cut(exec.Line, "exit "); ok {
			if _, err := fmt.Sscan(after, &status.N); err != nil {
				return err
			}
		}
		fmt.Fprintf(ch, "guest got: %s\n", exec.Line)
		_, err := ch.SendRequest("exit-status", false, ssh.Marshal(status))
		return errors.Join(err, ch.Close())
	}
	return nil
}
