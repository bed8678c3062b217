package sshaccess_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"banger/internal/feature/sshaccess"
	"banger/internal/sshkey"
	"banger/internal/vm"
)

// guest is an sshd that lets in whoever has its own host key, and notes what is asked of it.
type guest struct {
	config *ssh.ServerConfig
	asked  []string
	status uint32 // of commands
}

func newGuest(t *testing.T, v vm.VM) *guest {
	t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(v.Access.HostKeyPrivate))
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{config: &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() != "root" || !sshkey.Same(string(ssh.MarshalAuthorizedKey(key)), v.Access.HostKey) {
			return nil, errors.New("who is that")
		}
		return &ssh.Permissions{}, nil
	}}}
	g.config.AddHostKey(signer)
	return g
}

// dial returns a connection that the guest serves until it is closed.
func (g *guest) dial(t *testing.T) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		done := make(chan struct{})
		t.Cleanup(func() { _ = l.Close(); <-done })
		go func() {
			defer close(done)
			if there, err := l.Accept(); err == nil {
				g.serve(there)
			}
		}()
		return net.Dial("tcp", l.Addr().String())
	}
}

func (g *guest) serve(conn net.Conn) {
	defer conn.Close()
	c, channels, requests, err := ssh.NewServerConn(conn, g.config)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	go ssh.DiscardRequests(requests)
	for n := range channels {
		channel, asks, err := n.Accept()
		if err != nil {
			return
		}
		for r := range asks {
			g.asked = append(g.asked, strings.TrimRight(r.Type, "\x00"))
			_ = r.Reply(true, nil)
			if r.Type == "exec" || r.Type == "shell" {
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{g.status}))
				_ = channel.Close()
			}
		}
	}
}

func template(t *testing.T) vm.VM {
	t.Helper()
	key, err := sshkey.New("a template")
	if err != nil {
		t.Fatal(err)
	}
	return vm.VM{Access: vm.Access{HostKey: key.Public, HostKeyPrivate: key.Private, AuthorizedKeys: []string{key.Public}}}
}

func TestARehearsalIsACommandAndAShell(t *testing.T) {
	v := template(t)
	g := newGuest(t, v)
	if err := (sshaccess.Feature{}).Rehearse(t.Context(), v, g.dial(t)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"exec", "pty-req", "shell"}; !slices.Equal(g.asked, want) {
		t.Errorf("it asked for %v, want %v", g.asked, want)
	}
}

func TestWhatKeepsARehearsalFromItsEnd(t *testing.T) {
	v := template(t)
	for name, c := range map[string]struct {
		guest func(*guest)
		dial  func(context.Context) (net.Conn, error)
		want  string
	}{
		"nobody listens": {dial: func(context.Context) (net.Conn, error) { return nil, errors.New("refused") }, want: "refused"},
		"it lets none in": {guest: func(g *guest) {
			g.config.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, errors.New("no") }
		}, want: "unable to authenticate"},
		"no command runs": {guest: func(g *guest) { g.status = 127 }, want: "run a command: Process exited with status 127"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, v)
			if c.guest != nil {
				c.guest(g)
			}
			if c.dial == nil {
				c.dial = g.dial(t)
			}
			if err := (sshaccess.Feature{}).Rehearse(t.Context(), v, c.dial); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// A guest that accepts and says nothing is given up with the context.
func TestARehearsalIsCalledOff(t *testing.T) {
	v := template(t)
	here, there := net.Pipe()
	defer there.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := (sshaccess.Feature{}).Rehearse(ctx, v, func(context.Context) (net.Conn, error) { return here, nil }); err == nil {
		t.Error("it went well")
	}
}
