package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"banger/internal/agent"
	"banger/internal/agentproto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type machine struct {
	restarted chan struct{}
	*clock
}

// clock is a wall clock that stands still. One that is broken cannot be set.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	broken bool
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) SetClock(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return errors.New("operation not permitted")
	}
	c.now = now
	return nil
}

// noon is when the tests' clocks stand.
func noon() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

func (machine) Info() agentproto.Info { return agentproto.Info{Hostname: "test"} }
func (machine) Stats() agentproto.Stats {
	return agentproto.Stats{CPU: time.Second, MemTotal: 2, MemAvail: 1}
}
func (machine) Uptime() time.Duration            { return time.Second }
func (machine) Listening() (map[int]bool, error) { return nil, errors.New("no table") }

func (machine) Listeners() (agentproto.Listeners, error) {
	return agentproto.Listeners{}, errors.New("no table")
}

func (m machine) Rename(hostname string) error {
	if hostname == "" {
		return errors.New("no name")
	}
	return nil
}

// Grow waits for a disk that never becomes larger.
func (m machine) Grow(ctx context.Context, device string, size int64) error {
	if size > 1<<40 {
		return fmt.Errorf("%s is not that large", device)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		return errors.New("it may take for ever")
	}
	return nil
}
func (m machine) Restart() { close(m.restarted) }
func (machine) Sync()      {}

// Reseed takes no entropy of zeroes.
func (machine) Reseed(entropy []byte) error {
	if entropy[0] == 0 {
		return errors.New("operation not permitted")
	}
	return nil
}

// Adopt fails in part where there is no hostname.
func (machine) Adopt(_ context.Context, cfg agentproto.GuestConfig) error {
	switch cfg.Hostname {
	case "":
		return errors.New("no name")
	case "keyless":
		return fmt.Errorf("%w: no space left on device", agent.ErrOthers)
	}
	return nil
}

// Keep has no room for every token.
func (machine) Keep(identity agent.Identity) error {
	if identity.Token == "full" {
		return errors.New("no space left on device")
	}
	return nil
}

// serve runs an agent whose host never answers, and returns how to reach it.
func serve(t *testing.T) (dial func() net.Conn, m machine) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m = machine{make(chan struct{}), &clock{now: noon()}}
	a := &agent.Agent{
		Listener: l,
		DialHost: func(context.Context) (net.Conn, error) { return nil, errors.New("no host") },
		Machine:  m,
		SSH:      func() (func(context.Context, net.Conn), error) { return greets, nil },
		Log:      slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}, m
}

// greets serves SSH as far as it can be told from anything else.
func greets(ctx context.Context, c net.Conn) {
	defer c.Close()
	_, _ = io.WriteString(c, "SSH-2.0\n")
	<-ctx.Done()
}

func TestSSHEndsWithTheGuest(t *testing.T) {
	dial, m := serve(t)
	c := dial()
	if resp := ask(t, c, agentproto.Request{Op: agentproto.OpSSH}); resp.Error != "" {
		t.Fatal(resp.Error)
	}
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	ask(t, dial(), agentproto.Request{Op: agentproto.OpShutdown, Shutdown: &agentproto.Shutdown{Intent: agentproto.IntentPoweroff}})
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	<-m.restarted
	// One that did not go down after all serves others.
	again := dial()
	if resp := ask(t, again, agentproto.Request{Op: agentproto.OpSSH}); resp.Error != "" {
		t.Error(resp.Error)
	}
	if _, err := io.ReadFull(again, make([]byte, 8)); err != nil {
		t.Error(err)
	}
}

func ask(t *testing.T, c net.Conn, req agentproto.Request) agentproto.Response {
	t.Helper()
	var resp agentproto.Response
	if err := errors.Join(agentproto.WriteFrame(c, req), agentproto.ReadFrame(c, &resp, agentproto.MaxFromAgent)); err != nil {
		t.Fatal(err)
	}
	return resp
}

// adopt is a good request but for what change does to it.
func adopt(change func(*agentproto.Adopt)) agentproto.Request {
	a := agentproto.Adopt{
		Config: agentproto.GuestConfig{Hostname: "other"}, Token: "token", Now: noon().Add(time.Hour),
		Entropy: bytes.Repeat([]byte("e"), 64),
	}
	change(&a)
	return agentproto.Request{Op: agentproto.OpAdopt, Adopt: &a}
}

func TestRequests(t *testing.T) {
	dial, m := serve(t)
	tests := []struct {
		req  agentproto.Request
		want agentproto.Response
	}{
		{agentproto.Request{Op: agentproto.OpPing}, agentproto.Response{}},
		{agentproto.Request{Op: agentproto.OpInfo}, agentproto.Response{Info: &agentproto.Info{Hostname: "test"}}},
		{agentproto.Request{Op: agentproto.OpStats}, agentproto.Response{Stats: &agentproto.Stats{CPU: time.Second, MemTotal: 2, MemAvail: 1}}},
		{agentproto.Request{Op: "dance"}, agentproto.Response{Error: `this agent knows no request "dance"`}},
		{agentproto.Request{Op: agentproto.OpDial}, agentproto.Response{Error: `this agent knows no request "dial"`}},
		{agentproto.Request{Op: agentproto.OpShutdown}, agentproto.Response{Error: `this agent knows no request "shutdown"`}},
		{agentproto.Request{Op: agentproto.OpClock}, agentproto.Response{Error: `this agent knows no request "clock"`}},
		{agentproto.Request{Op: agentproto.OpClock, Clock: &agentproto.Clock{Now: noon().Add(time.Hour)}}, agentproto.Response{Clock: &agentproto.Clocked{Off: time.Hour}}},
		{agentproto.Request{Op: agentproto.OpClock, Clock: &agentproto.Clock{Now: noon().Add(time.Hour)}}, agentproto.Response{Clock: &agentproto.Clocked{}}},
		{agentproto.Request{Op: agentproto.OpGrow}, agentproto.Response{Error: `this agent knows no request "grow"`}},
		{agentproto.Request{Op: agentproto.OpGrow, Grow: &agentproto.Grow{Device: "/dev/vdb", Size: 1 << 30}}, agentproto.Response{}},
		{agentproto.Request{Op: agentproto.OpGrow, Grow: &agentproto.Grow{Device: "/dev/vdb", Size: 1 << 50}}, agentproto.Response{Error: "/dev/vdb is not that large"}},
		{agentproto.Request{Op: agentproto.OpRename, Rename: &agentproto.Rename{Hostname: "other"}}, agentproto.Response{}},
		{agentproto.Request{Op: agentproto.OpRename, Rename: &agentproto.Rename{}}, agentproto.Response{Error: "no name"}},
		{agentproto.Request{Op: agentproto.OpHold}, agentproto.Response{Error: `this agent knows no request "hold"`}},
		{agentproto.Request{Op: agentproto.OpHold, Hold: &agentproto.Hold{}}, agentproto.Response{Error: "hold for 0s: it takes at most 5m0s"}},
		{agentproto.Request{Op: agentproto.OpHold, Hold: &agentproto.Hold{For: time.Hour}}, agentproto.Response{Error: "hold for 1h0m0s: it takes at most 5m0s"}},
		{agentproto.Request{Op: agentproto.OpHold, Hold: &agentproto.Hold{For: time.Minute}}, agentproto.Response{}},
		{agentproto.Request{Op: agentproto.OpAdopt}, agentproto.Response{Error: `this agent knows no request "adopt"`}},
		{adopt(func(*agentproto.Adopt) {}), agentproto.Response{Adopted: &agentproto.Adopted{}}},
		{adopt(func(a *agentproto.Adopt) { a.Entropy = nil }), agentproto.Response{Error: "0 bytes of entropy: it takes 32 to 512"}},
		{adopt(func(a *agentproto.Adopt) { a.Entropy = make([]byte, 513) }), agentproto.Response{Error: "513 bytes of entropy: it takes 32 to 512"}},
		{adopt(func(a *agentproto.Adopt) { a.Token = "" }), agentproto.Response{Error: "a token of 0 bytes: it takes 1 to 128"}},
		{adopt(func(a *agentproto.Adopt) { a.Token = strings.Repeat("x", 129) }), agentproto.Response{Error: "a token of 129 bytes: it takes 1 to 128"}},
		{adopt(func(a *agentproto.Adopt) { a.Config.Network = &agentproto.Network{MAC: "eth0"} }), agentproto.Response{Error: "address eth0: invalid MAC address"}},
		{adopt(func(a *agentproto.Adopt) { a.Config.Hostname = "" }), agentproto.Response{Adopted: &agentproto.Adopted{Warning: "no name"}}},
		{adopt(func(a *agentproto.Adopt) { a.Config.Hostname = "keyless" }), agentproto.Response{Error: "it would keep keys of another guest: no space left on device"}},
		{adopt(func(a *agentproto.Adopt) { a.Entropy = make([]byte, 64) }), agentproto.Response{Error: "take the entropy: operation not permitted"}},
		{adopt(func(a *agentproto.Adopt) { a.Token = "full" }), agentproto.Response{Error: "keep the token: no space left on device"}},
		{agentproto.Request{Op: agentproto.OpDial, Dial: &agentproto.Dial{Port: 70000}}, agentproto.Response{Error: "dial tcp: address 70000: invalid port"}},
		{agentproto.Request{Op: agentproto.OpShutdown, Shutdown: &agentproto.Shutdown{Intent: agentproto.IntentPoweroff}}, agentproto.Response{}},
	}
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, ask(t, dial(), tt.req)); d != "" {
			t.Errorf("%+v: %s", tt.req, d)
		}
	}
	<-m.restarted // the last one
}

// A connection that does not speak the protocol is closed and keeps nobody else from being served.
func TestGarbage(t *testing.T) {
	dial, _ := serve(t)
	for _, bytes := range []string{"GET / HTTP/1.1\r\n\r\n", "\xff\xff\xff\xff", "\x00\x00\x00\x02[]"} {
		c := dial()
		if _, err := io.WriteString(c, bytes); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%q was answered", bytes)
		}
	}
	ask(t, dial(), agentproto.Request{Op: agentproto.OpPing})
}

// A service that listens on one of the guest's own addresses only is found without naming a host.
func TestDialTriesTheGuestsOwnAddresses(t *testing.T) {
	hosts := []string{"127.0.0.1", "::1"}
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p := a.(*net.IPNet); p.IP.IsGlobalUnicast() {
			hosts = append(hosts, p.IP.String())
		}
	}
	dial, _ := serve(t)
	for _, host := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if resp := ask(t, dial(), agentproto.Request{Op: agentproto.OpDial, Dial: &agentproto.Dial{Port: port}}); resp.Error != "" {
			t.Error(host, resp.Error)
		}
		_ = l.Close()
		if resp := ask(t, dial(), agentproto.Request{Op: agentproto.OpDial, Dial: &agentproto.Dial{Port: port}}); !strings.Contains(resp.Error, "refused") {
			t.Error(host, resp.Error)
		}
	}
}
