// Package guesttest runs the real agent beside a test, behind Unix sockets shaped as those of
// Firecracker's vsock device, so that what talks to guests can be tested without a hypervisor.
package guesttest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/agent"
	"banger/internal/agentproto"
	"banger/internal/procnet"
	"banger/internal/vm"
)

// Device is a vsock device without a machine: host-initiated connections arrive at <dir>/v.sock,
// guest-initiated ones go to <dir>/v.sock_<port>.
type Device struct {
	dir      *os.File
	listener net.Listener

	mu    sync.Mutex
	ports map[int]*port
	tasks sync.WaitGroup
}

// NewDevice starts the device in dir.
func NewDevice(dir string) (*Device, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	dev := &Device{dir: d, ports: make(map[int]*port)}
	dev.listener, err = new(net.ListenConfig).Listen(context.Background(), "unix", dev.path(vm.FileVsock))
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	dev.tasks.Go(dev.accept)
	return dev, nil
}

func (d *Device) path(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.dir.Fd(), name)
}

// Close removes the device. Open connections stay.
func (d *Device) Close() error {
	err := d.listener.Close()
	d.tasks.Wait()
	return errors.Join(err, d.dir.Close())
}

// DialHost connects from the guest to a port of the host.
func (d *Device) DialHost(ctx context.Context, port int) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", d.path(vm.FileVsock+"_"+strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return wholeConn{c}, nil
}

// Listen listens in the guest.
func (d *Device) Listen(number int) (net.Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ports[number] != nil {
		return nil, fmt.Errorf("vsock port %d is taken", number)
	}
	p := &port{device: d, number: number, conns: make(chan net.Conn), closed: make(chan struct{})}
	d.ports[number] = p
	return p, nil
}

func (d *Device) accept() {
	for {
		c, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.tasks.Go(func() { d.connect(c) })
	}
}

// connect answers a host's CONNECT.
func (d *Device) connect(c net.Conn) {
	if c.SetReadDeadline(time.Now().Add(5*time.Second)) != nil {
		return
	}
	// One byte of buffer would do, bufio's least is 16: the host sends nothing before it has its OK.
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	number, numErr := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(line, "CONNECT "), "\n"))
	d.mu.Lock()
	p := d.ports[number]
	d.mu.Unlock()
	if err != nil || numErr != nil || p == nil || c.SetReadDeadline(time.Time{}) != nil {
		_ = c.Close()
		return
	}
	if _, err := io.WriteString(c, "OK 1073741824\n"); err != nil {
		_ = c.Close()
		return
	}
	select {
	case p.conns <- wholeConn{c}:
	case <-p.closed:
		_ = c.Close()
	}
}

// wholeConn has no half-close, as the device's connections have none.
type wholeConn struct{ net.Conn }

type port struct {
	device *Device
	number int
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.device.mu.Lock()
		defer p.device.mu.Unlock()
		delete(p.device.ports, p.number)
	})
	return nil
}

func (p *port) Addr() net.Addr { return &net.UnixAddr{Name: vm.FileVsock, Net: "unix"} }

// Guest is a guest without a machine: an initrd's hello, then the resident agent.
type Guest struct {
	Config agentproto.GuestConfig // what the host sent at boot
	token  string                 // came with it
	Ended  chan struct{}          // closed when the host has had it shut down

	device  *Device
	machine *machine
	log     *slog.Logger
	term    chan struct{}
	cancel  context.CancelFunc
	done    chan error
}

// Boot begins a guest in dir, whose host must be listening already. It has said Hello in both phases'
// order, but perhaps not yet Ready, when Boot returns.
func Boot(ctx context.Context, dir string, log *slog.Logger) (*Guest, error) {
	dev, err := NewDevice(dir)
	if err != nil {
		return nil, err
	}
	g := &Guest{Ended: make(chan struct{}), device: dev, log: log, term: make(chan struct{})}
	g.machine = &machine{born: time.Now(), restart: sync.OnceFunc(func() { close(g.Ended) })}
	if err := g.hello(ctx); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	g.machine.kept = agent.Identity{Token: g.token, Services: g.Config.Services}
	if err := g.serve(ctx); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return g, nil
}

// serve starts the resident agent as the one that the guest has kept.
func (g *Guest) serve(ctx context.Context) error {
	l, err := g.device.Listen(agentproto.RequestPort)
	if err != nil {
		return err
	}
	a := &agent.Agent{
		Listener:    l,
		DialHost:    func(ctx context.Context) (net.Conn, error) { return g.device.DialHost(ctx, agentproto.ControlPort) },
		Hello:       hello(),
		Identity:    g.machine.identity(),
		Machine:     g.machine,
		SSH:         func() (func(context.Context, net.Conn), error) { return serveSSH, nil },
		Log:         g.log,
		Terminating: g.term,
	}
	ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	g.done = done
	return nil
}

// serveSSH is no SSH, but says back what it was sent.
func serveSSH(_ context.Context, c net.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, c) // the client tells
}

// Restart is the agent's server dying and its supervisor starting another.
func (g *Guest) Restart(ctx context.Context) error {
	g.cancel()
	return errors.Join(<-g.done, g.serve(ctx))
}

func hello() agentproto.Hello {
	return agentproto.Hello{Agent: "test", Arch: "amd64", BootID: "00000000-0000-4000-8000-000000000000", Phase: agentproto.PhaseBoot}
}

// hello is what the initrd's agent says.
func (g *Guest) hello(ctx context.Context) error {
	c, err := g.device.DialHost(ctx, agentproto.ControlPort)
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := agent.Greet(c, hello())
	if err != nil {
		return err
	}
	if w.Config == nil {
		return errors.New("the host sent no guest config")
	}
	g.Config, g.token = *w.Config, w.Token
	for _, stage := range []string{agentproto.StageConfig, agentproto.StageInit} {
		p := agentproto.FromAgent{Progress: &agentproto.Progress{Stage: stage, Uptime: g.machine.Uptime()}}
		if err := agentproto.WriteFrame(c, p); err != nil {
			return err
		}
	}
	return nil
}

// Terminate is the guest's init ending every process, as it does before it goes down.
func (g *Guest) Terminate() { g.term <- struct{}{} }

// Stop ends the guest as a reset does.
func (g *Guest) Stop() error {
	g.cancel()
	return errors.Join(<-g.done, g.device.Close())
}

// Behind is how far the guest's clock is behind.
func (g *Guest) Behind() time.Duration { return time.Duration(g.machine.behind.Load()) }

// SetBack puts the guest's clock back, as a pause does.
func (g *Guest) SetBack(by time.Duration) { g.machine.behind.Store(int64(by)) }

// machine is the test's own host in the role of the guest. Its clock is its own.
type machine struct {
	born    time.Time
	behind  atomic.Int64 // nanoseconds
	restart func()

	mu      sync.Mutex
	changes []string
	kept    agent.Identity
}

func (m *machine) Now() time.Time { return time.Now().Add(-time.Duration(m.behind.Load())) }

func (m *machine) SetClock(now time.Time) error {
	m.behind.Store(int64(time.Since(now)))
	return nil
}

func (m *machine) Uptime() time.Duration            { return time.Since(m.born) }
func (m *machine) Listening() (map[int]bool, error) { return procnet.Ports("/proc/net") }

// Listeners says what a guest may say that means harm.
func (m *machine) Listeners() (agentproto.Listeners, error) {
	return agentproto.Listeners{All: []agentproto.Socket{
		{Address: "127.0.0.1:80", PID: 7, Program: "httpd\x1b[2J"}, {Address: "nowhere", PID: -1}, {Address: "[::]:443"},
	}, More: -1}, nil
}

func (m *machine) Restart() { m.restart() }

// Grow notes what is asked: the test's own host stays as it is.
func (m *machine) Grow(_ context.Context, device string, size int64) error {
	return m.note(fmt.Sprintf("grow %s to %d", device, size))
}

// Rename notes it too.
func (m *machine) Rename(hostname string) error {
	if hostname == "" {
		return errors.New("set the hostname:\x1b[2J no name")
	}
	return m.note("rename to " + hostname)
}

// Sync, Reseed, Adopt and Keep note what is asked as well.
func (m *machine) Sync() { _ = m.note("sync") }

// Reseed notes how much there is: what it is would be another thing each time.
func (m *machine) Reseed(entropy []byte) error {
	return m.note(fmt.Sprintf("reseed with %d bytes", len(entropy)))
}

// Adopt fails in part where the hostname is empty.
func (m *machine) Adopt(_ context.Context, cfg agentproto.GuestConfig) error {
	if cfg.Hostname == "" {
		return errors.New("set the hostname:\x1b[2J no name")
	}
	return m.note("become " + cfg.Hostname)
}

func (m *machine) Keep(identity agent.Identity) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = identity
	return nil
}

func (m *machine) identity() agent.Identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept
}

func (m *machine) note(change string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes = append(m.changes, change)
	return nil
}

// Changes are what the guest was asked to change about itself.
func (g *Guest) Changes() []string {
	g.machine.mu.Lock()
	defer g.machine.mu.Unlock()
	return slices.Clone(g.machine.changes)
}

func (m *machine) Info() agentproto.Info {
	return agentproto.Info{Agent: "test", Version: agentproto.MaxVersion, OS: "Test OS", Hostname: "test", Uptime: m.Uptime()}
}

func (m *machine) Stats() agentproto.Stats {
	return agentproto.Stats{CPU: m.Uptime(), MemTotal: vm.GiB, MemAvail: vm.GiB / 4}
}
