package sshserver

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"banger/internal/relay"
)

// dialBudget bounds how long a forwarded connection may take to be there.
const dialBudget = 10 * time.Second

// privileged is below which number only root may listen.
const privileged = 1024

// directTCP connects the client to a port that the guest reaches: ssh -L, -D, -J and -W.
func (c *conn) directTCP(ctx context.Context, n ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(n.ExtraData(), &to); err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	c.direct(ctx, n, "tcp", net.JoinHostPort(to.Host, strconv.FormatUint(uint64(to.Port), 10)))
}

// directUnix connects the client to a Unix socket in the guest.
func (c *conn) directUnix(ctx context.Context, n ssh.NewChannel) {
	var to struct {
		Path     string
		Reserved string
		Zero     uint32
	}
	switch err := ssh.Unmarshal(n.ExtraData(), &to); {
	case err != nil:
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
	case c.who.uid != 0: // it is we who connect
		_ = n.Reject(ssh.Prohibited, "only root can have sockets forwarded")
	default:
		c.direct(ctx, n, "unix", to.Path)
	}
}

func (c *conn) direct(ctx context.Context, n ssh.NewChannel, network, address string) {
	d := net.Dialer{Timeout: dialBudget}
	far, err := d.DialContext(ctx, network, address)
	if err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := n.Accept()
	if err != nil {
		_ = far.Close()
		return
	}
	join(ctx, channel, requests, far.(relay.Conn))
}

// join copies both ways until both have ended or ctx is done, and closes both.
func join(ctx context.Context, channel ssh.Channel, requests <-chan *ssh.Request, far relay.Conn) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		ssh.DiscardRequests(requests) // until the client, or we, have closed the channel
	}()
	closeBoth := func() { _, _ = channel.Close(), far.Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	_ = relay.Both(channel, spoken{far, closed}, closeBoth) // the client and the guest know how it ended
	closeBoth()
	<-closed
}

// spoken is a connection that ends with the channel which is copied to it: after what that has brought, not before.
type spoken struct {
	relay.Conn
	closed <-chan struct{}
}

func (s spoken) CloseWrite() error {
	go func() {
		<-s.closed // a client that has closed the channel as a whole wants no answer
		_ = s.Close()
	}()
	return s.Conn.CloseWrite()
}

// global serves what concerns the connection as a whole: forwarding back, ssh -R.
func (c *conn) global(ctx context.Context, requests <-chan *ssh.Request) {
	defer c.closeListeners()
	for r := range requests {
		var answer []byte
		ok := false
		switch r.Type {
		case "tcpip-forward":
			answer, ok = c.listenTCP(ctx, r.Payload)
		case "streamlocal-forward@openssh.com":
			ok = c.listenUnix(ctx, r.Payload)
		case "cancel-tcpip-forward":
			var v struct {
				Host string
				Port uint32
			}
			ok = ssh.Unmarshal(r.Payload, &v) == nil && c.closeListener(nameTCP(v.Host, v.Port))
		case "cancel-streamlocal-forward@openssh.com":
			var v struct{ Path string }
			ok = ssh.Unmarshal(r.Payload, &v) == nil && c.closeListener(v.Path)
		}
		if r.WantReply {
			_ = r.Reply(ok, answer)
		}
	}
}

func nameTCP(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

// listenTCP listens on the loopback, whatever address the client asks for, as sshd does unless it is told otherwise: what is
// forwarded is not for the guest's network.
func (c *conn) listenTCP(ctx context.Context, payload []byte) (answer []byte, ok bool) {
	var v struct {
		Host string
		Port uint32
	}
	if ssh.Unmarshal(payload, &v) != nil || v.Port > 1<<16-1 || v.Port != 0 && v.Port < privileged && c.who.uid != 0 {
		return nil, false
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", nameTCP("127.0.0.1", v.Port))
	if err != nil {
		c.server.Log.Info("ssh forward", "error", err)
		return nil, false
	}
	port := uint32(l.Addr().(*net.TCPAddr).Port)
	ok = c.forwardBack(ctx, nameTCP(v.Host, port), l, func(far net.Conn) (string, []byte) {
		from := far.RemoteAddr().(*net.TCPAddr)
		return "forwarded-tcpip", ssh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{v.Host, port, from.IP.String(), uint32(from.Port)})
	})
	if v.Port == 0 {
		answer = ssh.Marshal(struct{ Port uint32 }{port})
	}
	return answer, ok
}

func (c *conn) listenUnix(ctx context.Context, payload []byte) bool {
	var v struct{ Path string }
	if ssh.Unmarshal(payload, &v) != nil || c.who.uid != 0 {
		return false
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", v.Path)
	if err != nil {
		c.server.Log.Info("ssh forward", "error", err)
		return false
	}
	return c.forwardBack(ctx, v.Path, l, func(net.Conn) (string, []byte) {
		return "forwarded-streamlocal@openssh.com", ssh.Marshal(struct{ Path, Reserved string }{v.Path, ""})
	})
}

// forwardBack opens a channel to the client for each connection that arrives.
func (c *conn) forwardBack(ctx context.Context, name string, l net.Listener, open func(far net.Conn) (kind string, data []byte)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, double := c.listeners[name]; double || len(c.listeners) >= maxListeners {
		_ = l.Close()
		return false
	}
	c.listeners[name] = l
	c.work.Go(func() {
		c.accept(ctx, l, open)
	})
	return true
}

// accept serves a listener until that is closed.
func (c *conn) accept(ctx context.Context, l net.Listener, open func(far net.Conn) (kind string, data []byte)) {
	for {
		far, err := l.Accept()
		if err != nil {
			return
		}
		select {
		case c.open <- struct{}{}:
		default: // whoever dials in the guest has no claim on more
			_ = far.Close()
			continue
		}
		c.work.Go(func() {
			defer func() { <-c.open }()
			channel, requests, err := c.ssh.OpenChannel(open(far))
			if err != nil {
				_ = far.Close()
				return
			}
			join(ctx, channel, requests, far.(relay.Conn))
		})
	}
}

func (c *conn) closeListener(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.listeners[name]
	delete(c.listeners, name)
	return ok && l.Close() == nil
}

func (c *conn) closeListeners() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.listeners {
		_ = l.Close()
	}
}

// lendKeys lets the session's programs use the keys of the client's agent, ssh -A, by a socket that only the account can
// reach.
func (s *session) lendKeys(ctx context.Context) (socket string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "ssh-")
	if err != nil {
		return "", nil, err
	}
	removeDir := func() { _ = os.RemoveAll(dir) }
	socket = filepath.Join(dir, "agent")
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", socket)
	if err != nil {
		removeDir()
		return "", nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // what has its name by then may be another file
	// The directory last: once it is the account's, so is what its names lead to.
	if err := errors.Join(os.Lchown(socket, int(s.who.uid), int(s.who.gid)), os.Lchown(dir, int(s.who.uid), int(s.who.gid))); err != nil {
		_ = l.Close()
		removeDir()
		return "", nil, err
	}
	s.work.Go(func() {
		s.accept(ctx, l, func(net.Conn) (string, []byte) { return "auth-agent@openssh.com", nil })
	})
	return socket, func() { _ = l.Close(); removeDir() }, nil
}
