package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/guest"
	"banger/internal/guest/guesttest"
	"banger/internal/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// host is an open Guest and what it has delivered.
type host struct {
	*guest.Guest
	dir    string
	events chan guest.Event
}

// open listens in a directory whose path is longer than a socket address.
func open(t *testing.T, config func() agentproto.GuestConfig) *host {
	t.Helper()
	h := &host{dir: filepath.Join(t.TempDir(), strings.Repeat("long/", 30)), events: make(chan guest.Event, 100)}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	h.Guest, err = guest.Open(h.dir, config, func(e guest.Event) { h.events <- e }, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func config() agentproto.GuestConfig { return agentproto.GuestConfig{Hostname: "dev"} }

// next returns the next event as text.
func (h *host) next(t *testing.T) string {
	t.Helper()
	select {
	case e := <-h.events:
		return show(e)
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
		return ""
	}
}

func show(e guest.Event) string {
	switch {
	case e.Hello != nil:
		return "hello " + string(e.Hello.Phase)
	case e.Progress != nil:
		return "progress " + e.Progress.Stage
	case e.Ready != nil:
		return fmt.Sprintf("ready %d", len(e.Ready.Services))
	case e.Failed != nil:
		return "failed " + e.Failed.Stage + ": " + e.Failed.Msg
	case e.Farewell != nil:
		return "farewell " + string(e.Farewell.Intent)
	}
	return "nothing"
}

func (h *host) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := h.next(t); got != w {
			t.Fatalf("event %q, want %q", got, w)
		}
	}
}

// bootEvents are what a guest says until it is ready, when it awaits n services.
func bootEvents(n int) []string {
	return []string{"hello boot", "progress config", "progress init", "hello resident", fmt.Sprintf("ready %d", n)}
}

func boot(t *testing.T, h *host) *guesttest.Guest {
	t.Helper()
	g, err := guesttest.Boot(t.Context(), h.dir, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func TestBootPingInfoShutdown(t *testing.T) {
	h := open(t, config)
	g := boot(t, h)
	if g.Config.Hostname != "dev" {
		t.Errorf("the guest was told %+v", g.Config)
	}
	h.expect(t, bootEvents(0)...)
	if err := h.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	info, err := h.Info(t.Context())
	if err != nil || info.Hostname != "test" {
		t.Errorf("info %+v, error %v", info, err)
	}
	used, err := h.Stats(t.Context())
	if err != nil || used.MemTotal != vm.GiB || used.MemAvail != vm.GiB/4 || used.CPU <= 0 {
		t.Errorf("stats %+v, error %v", used, err)
	}
	listeners, err := h.Listeners(t.Context())
	if want := `{[{127.0.0.1:80 7 httpd\x1b[2J} {[::]:443 0 }] 0}`; err != nil || fmt.Sprint(listeners) != want {
		t.Errorf("listeners %v, error %v, want %s", listeners, err, want)
	}
	if err := h.Shutdown(t.Context(), agentproto.IntentPoweroff); err != nil {
		t.Error(err)
	}
	h.expect(t, "farewell poweroff")
	<-g.Ended
	// Init's own signal follows and says the same.
	g.Terminate()
	h.expect(t, "farewell poweroff")
}

func TestShutdownFromInside(t *testing.T) {
	h := open(t, config)
	g := boot(t, h)
	h.expect(t, bootEvents(0)...)
	g.Terminate()
	h.expect(t, "farewell unknown")
	if err := h.Ping(t.Context()); err != nil {
		t.Errorf("the agent fell silent before the guest did: %v", err)
	}
}

func TestReadyAwaitsServices(t *testing.T) {
	// A port that is known to be free: it was just given back.
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := probe.Addr().(*net.TCPAddr).Port
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	h := open(t, func() agentproto.GuestConfig {
		return agentproto.GuestConfig{Services: []agentproto.Service{{Name: "ssh", Port: port}}}
	})
	boot(t, h)
	h.expect(t, "hello boot", "progress config", "progress init", "hello resident")
	select {
	case e := <-h.events:
		t.Fatalf("event %q before the service listens", show(e))
	case <-time.After(100 * time.Millisecond):
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h.expect(t, "ready 1")
}

// A daemon that comes back finds the agent again, and is told that it is ready.
func TestDaemonRestart(t *testing.T) {
	h := open(t, config)
	boot(t, h)
	h.expect(t, bootEvents(0)...)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	again := &host{dir: h.dir, events: make(chan guest.Event, 100)}
	var err error
	again.Guest, err = guest.Open(h.dir, nil, func(e guest.Event) { again.events <- e }, quiet())
	if err != nil {
		t.Fatal(err)
	}
	again.expect(t, "hello resident", "ready 0")
	if err := errors.Join(again.Ping(t.Context()), again.Close()); err != nil {
		t.Error(err)
	}
}

func TestOpenReplacesAStaleSocket(t *testing.T) {
	h := open(t, config)
	name := filepath.Join(h.dir, "v.sock_1024")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := guest.Open(h.dir, config, func(guest.Event) {}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stayed behind: %v", err)
	}
}

func TestOpenWithoutDirectory(t *testing.T) {
	_, err := guest.Open(filepath.Join(t.TempDir(), "none"), config, func(guest.Event) {}, quiet())
	if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("got %v", err)
	}
}

// echo is a service in the guest that reads to the end, then answers.
func echo(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			got, err := io.ReadAll(c)
			if err == nil {
				_, _ = c.Write(append([]byte("got "), got...)) // the test sees what is missing
			}
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// A request that ends before its answer begins, through a device without half-close.
func TestDialHalfClose(t *testing.T) {
	h := open(t, config)
	boot(t, h)
	port := echo(t)
	for _, inside := range []string{"", "127.0.0.1", "localhost"} {
		c, err := h.Dial(t.Context(), inside, port)
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("question "), 20_000)
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff("got "+string(sent), string(got)); d != "" {
			t.Error(d)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSSH(t *testing.T) {
	h := open(t, config)
	boot(t, h)
	c, err := h.SSH(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A service that resets its connection must not look like one that said everything.
func TestDialReset(t *testing.T) {
	h := open(t, config)
	boot(t, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.ReadFull(c, make([]byte, 1)) // then it has been accepted by both sides
		_ = c.(*net.TCPConn).SetLinger(0)      // close with a reset
		c.Close()
	}()
	c, err := h.Dial(t.Context(), "", l.Addr().(*net.TCPAddr).Port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
	}
}

func TestDialErrors(t *testing.T) {
	h := open(t, config)
	boot(t, h)
	port := echo(t)
	_, err := h.Dial(t.Context(), "127.0.0.2", port)
	want := fmt.Sprintf("the guest answered: dial tcp 127.0.0.2:%d: connect: connection refused", port)
	if err == nil || err.Error() != want || !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNobodyAnswers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	short, cancelShort := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelShort()
	tests := []struct {
		name  string
		serve func(net.Conn) // nil: no device
		ctx   context.Context
		code  fault.Code
		want  string
	}{
		{"no device", nil, t.Context(), fault.Unavailable, "the guest's agent does not answer: connect: no such file or directory"},
		{"nobody listens in the guest", answer(""), t.Context(), fault.Unavailable, "the guest's agent does not answer: EOF"},
		{"not a vsock device", answer("\x1b[31mHTTP/1.1 400 Bad Request\r\n"), t.Context(), fault.Unavailable, `the guest's agent does not answer: the hypervisor answered "\x1b[31mHTTP/1.1 400"`},
		{"a huge frame", answer("OK 1\n\xff\xff\xff\xff"), t.Context(), fault.Unavailable, "the guest's agent does not answer: frame is larger than the protocol allows"},
		{"an error with escapes", answer("OK 1\n\x00\x00\x00\x19" + `{"error":"\u001b[2Jno!!"}`), t.Context(), fault.Unavailable, `the guest answered: \x1b[2Jno!!`},
		{"silence", silence, short, fault.Unavailable, "the guest's agent does not answer: i/o timeout"},
		{"called off", silence, ctx, fault.Canceled, "called off while the guest's agent was being asked: context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, config)
			if tt.serve != nil {
				serveSocket(t, h.dir, tt.serve)
			}
			err := h.Ping(tt.ctx)
			if err == nil || err.Error() != tt.want || fault.CodeOf(err) != tt.code {
				t.Errorf("got %v (%s), want %s (%s)", err, fault.CodeOf(err), tt.want, tt.code)
			}
		})
	}
}

func silence(c net.Conn) { _, _ = io.Copy(io.Discard, c) } // until the client gives up

// answer reads the CONNECT line and says text.
func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, len("CONNECT 1023\n")))
		_, _ = io.WriteString(c, text) // the test sees what is missing
		if text != "" {
			silence(c)
		}
	}
}

// serveSocket is a v.sock that answers each connection with serve.
func serveSocket(t *testing.T, dir string, serve func(net.Conn)) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/v.sock", d.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done; d.Close() })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
}

func TestPingAfterClose(t *testing.T) {
	h := open(t, config)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	err := h.Ping(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "the VM is not running any more") {
		t.Errorf("got %v", err)
	}
}

func TestTheGuestsClockFollows(t *testing.T) {
	h := open(t, config)
	g := boot(t, h)
	h.expect(t, bootEvents(0)...)
	for _, off := range []time.Duration{time.Hour, -time.Hour, 50 * time.Millisecond, 0} {
		g.SetBack(off)
		was, err := h.SetClock(t.Context())
		if err != nil || (was-off).Abs() > 5*time.Second { // the test's machine may be slow
			t.Errorf("it was behind by %v, %v, want %v", was, err, off)
		}
		if now := g.Behind().Abs(); now > 5*time.Second {
			t.Errorf("set back by %v it is still behind by %v", off, now)
		}
	}
}

// A daemon that comes back finds guests that were paused, or slept with the host, meanwhile.
func TestTheClockIsRightOnceTheAgentHasCalled(t *testing.T) {
	h := open(t, config)
	g := boot(t, h)
	h.expect(t, bootEvents(0)...)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	g.SetBack(time.Hour)
	again := make(chan guest.Event, 100)
	second, err := guest.Open(h.dir, nil, func(e guest.Event) { again <- e }, quiet())
	if err != nil {
		t.Fatal(err)
	}
	(&host{events: again}).expect(t, "hello resident", "ready 0")
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if now := g.Behind().Abs(); now > 5*time.Second {
		t.Errorf("it is behind by %v", now)
	}
}

// An agent of an older release says that it knows no such request.
func TestAnAgentWithoutTheClockRequest(t *testing.T) {
	h := open(t, config)
	var frame bytes.Buffer
	if err := agentproto.WriteFrame(&frame, agentproto.Response{Error: `this agent knows no request "clock"`}); err != nil {
		t.Fatal(err)
	}
	serveSocket(t, h.dir, answer("OK 1\n"+frame.String()))
	if _, err := h.SetClock(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "knows no request") {
		t.Errorf("error %v", err)
	}
}
