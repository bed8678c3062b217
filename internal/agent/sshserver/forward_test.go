package sshserver_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestForwardedConnections(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	socket := filepath.Join(g.root, "s")
	for _, where := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", socket}} {
		l, err := net.Listen(where[0], where[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go answer(l)
		far, err := c.Dial(where[0], l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		question(t, far)
	}
	if _, err := c.Dial("unix", filepath.Join(g.root, "nosuch")); err == nil {
		t.Error("it reaches a socket that there is not")
	}
}

func TestConnectionsThatAreForwardedBack(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	for _, where := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", filepath.Join(g.root, "s")}} {
		l, err := c.Listen(where[0], where[1])
		if err != nil {
			t.Fatal(err)
		}
		go answer(l)
		near, err := net.Dial(where[0], l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		question(t, near)
		if where[0] == "unix" {
			if _, err := c.Listen(where[0], where[1]); err == nil {
				t.Error("it listens twice")
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := net.Dial(where[0], l.Addr().String()); err == nil {
			t.Error("it listens still")
		}
	}
}

// answer says back what it is asked, once that has been asked.
func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			all, _ := io.ReadAll(c)
			_, _ = c.Write(append([]byte("you said "), all...))
		}()
	}
}

func question(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "you said hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTheClientsKeysAreLent(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	signer, err := ssh.ParseRawPrivateKey([]byte(g.key.Private))
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := errors.Join(ring.Add(agent.AddedKey{PrivateKey: signer, Comment: "lent"}), agent.ForwardToAgent(c, ring)); err != nil {
		t.Fatal(err)
	}
	s := g.session(c)
	if err := agent.RequestAgentForwarding(s); err != nil {
		t.Fatal(err)
	}
	in, ierr := s.StdinPipe()
	out, oerr := s.StdoutPipe()
	if err := errors.Join(ierr, oerr, s.Start(`echo "$SSH_AUTH_SOCK="; cat`)); err != nil {
		t.Fatal(err)
	}
	socket := (&reader{t: t, from: out}).until("=\n")
	near, err := net.Dial("unix", strings.TrimSuffix(socket, "=\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if keys, err := agent.NewClient(near).List(); err != nil || len(keys) != 1 || keys[0].Comment != "lent" {
		t.Errorf("it has %v, %v", keys, err)
	}
	if err := errors.Join(in.Close(), s.Wait()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(strings.TrimSuffix(socket, "=\n"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}
