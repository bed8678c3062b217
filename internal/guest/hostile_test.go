package guest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"banger/internal/agent"
	"banger/internal/agentproto"
	"banger/internal/guest"
	"banger/internal/guest/guesttest"
)

// wire is a guest that speaks for itself.
func wire(t *testing.T, h *host) func() net.Conn {
	t.Helper()
	dev, err := guesttest.NewDevice(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		t.Helper()
		c, err := dev.DialHost(t.Context(), agentproto.ControlPort)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func greet(t *testing.T, c net.Conn, phase agentproto.Phase) agentproto.Welcome {
	t.Helper()
	w, err := agent.Greet(c, agentproto.Hello{Phase: phase})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// resident dials as the agent that was left in the guest.
func resident(t *testing.T, h *host, c net.Conn) {
	t.Helper()
	if _, err := agent.Greet(c, residentHello(t, h)); err != nil {
		t.Fatal(err)
	}
}

func residentHello(t *testing.T, h *host) agentproto.Hello {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(h.dir, "agent.token"))
	if err != nil {
		t.Fatal(err)
	}
	return agentproto.Hello{Phase: agentproto.PhaseResident, Token: string(token)}
}

// refused says Hello and is not let in.
func refused(t *testing.T, c net.Conn, hello agentproto.Hello, why string) {
	t.Helper()
	if _, err := agent.Greet(c, hello); !errors.Is(err, agent.ErrRefused) || !strings.Contains(err.Error(), why) {
		t.Errorf("%+v: got %v", hello, err)
	}
}

func send(t *testing.T, c net.Conn, f agentproto.FromAgent) {
	t.Helper()
	if err := agentproto.WriteFrame(c, f); err != nil {
		t.Fatal(err)
	}
}

// closed waits until the host has closed the connection.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Fatal("the host kept the connection")
	}
}

func TestVersions(t *testing.T) {
	h := open(t, config)
	c := wire(t, h)()
	send(t, c, agentproto.FromAgent{Hello: &agentproto.Hello{MinVersion: 7, MaxVersion: 9, Phase: agentproto.PhaseResident}})
	var answer agentproto.FromHost
	if err := agentproto.ReadFrame(c, &answer, agentproto.MaxFromHost); err != nil {
		t.Fatal(err)
	}
	const want = "the peer speaks protocol versions 7 to 9, this build 1 to 1"
	if answer.Refused == nil || answer.Refused.Reason != want {
		t.Errorf("got %+v", answer)
	}
	closed(t, c)
}

func TestMisbehaviourEndsTheConnection(t *testing.T) {
	tests := map[string]string{
		"no hello":       "\x00\x00\x00\x0c{\"ready\":{}}",
		"not JSON":       "\x00\x00\x00\x04{{{{",
		"a huge frame":   "\x7f\xff\xff\xff",
		"two in one":     "\x00\x00\x00\x02{}",
		"unknown phase":  "\x00\x00\x00\x3b" + `{"hello":{"min_version":1,"max_version":1,"phase":"nowhere"}`,
		"an empty frame": "\x00\x00\x00\x00",
	}
	for name, bytes := range tests {
		t.Run(name, func(t *testing.T) {
			h := open(t, config)
			c := wire(t, h)()
			if _, err := io.WriteString(c, bytes); err != nil {
				t.Fatal(err)
			}
			closed(t, c)
			if len(h.events) > 0 {
				t.Errorf("event %q", show(<-h.events))
			}
		})
	}
}

// The config holds the guest's host key: whoever asks for it after the initrd did is somebody else.
func TestConfigIsGivenOnce(t *testing.T) {
	again := agentproto.Hello{Phase: agentproto.PhaseBoot}
	t.Run("at boot", func(t *testing.T) {
		h := open(t, config)
		dial := wire(t, h)
		if w := greet(t, dial(), agentproto.PhaseBoot); w.Config == nil || w.Config.Hostname != "dev" || w.Token == "" {
			t.Fatalf("got %+v", w)
		}
		h.expect(t, "hello boot")
		refused(t, dial(), again, "this VM has booted already")
	})
	t.Run("not after a restart of the daemon", func(t *testing.T) {
		h := open(t, nil)
		refused(t, wire(t, h)(), again, "this VM has booted already")
	})
}

// Any process of a guest can dial the host, and none but the agent is heard.
func TestImpostors(t *testing.T) {
	h := open(t, config)
	dial := wire(t, h)
	w := greet(t, dial(), agentproto.PhaseBoot)
	h.expect(t, "hello boot")
	genuine := dial()
	resident(t, h, genuine)
	h.expect(t, "hello resident")
	const why = "this is not the agent that was left in the guest"
	for _, token := range []string{"", "x", w.Token[1:], w.Token + "x", strings.ToLower(w.Token)} {
		refused(t, dial(), agentproto.Hello{Phase: agentproto.PhaseResident, Token: token}, why)
	}
	send(t, genuine, agentproto.FromAgent{Ready: &agentproto.Ready{}}) // it still is the current one
	h.expect(t, "ready 0")

	t.Run("another boot has another token", func(t *testing.T) {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		next, err := guest.Open(h.dir, config, func(guest.Event) {}, quiet())
		if err != nil {
			t.Fatal(err)
		}
		refused(t, dial(), agentproto.Hello{Phase: agentproto.PhaseResident, Token: w.Token}, why)
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("without a token nobody is known", func(t *testing.T) {
		h := open(t, nil)
		refused(t, wire(t, h)(), agentproto.Hello{Phase: agentproto.PhaseResident}, why)
	})
}

// What lies in the place of the token is neither written nor read through.
func TestTokenFile(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("sacred"), 0o600), os.Symlink(victim, filepath.Join(dir, "agent.token"))); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	back, err := guest.Open(dir, nil, func(guest.Event) {}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || !strings.Contains(log.String(), "too many levels of symbolic links") {
		t.Errorf("a link was read: %v, %s", err, log.String())
	}
	if err := back.Close(); err != nil {
		t.Error(err)
	}
	g, err := guest.Open(dir, config, func(guest.Event) {}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "sacred" {
		t.Errorf("the link's target holds %q, %v", text, err)
	}
	fi, err := os.Lstat(filepath.Join(dir, "agent.token"))
	if err != nil || fi.Mode() != 0o600 {
		t.Errorf("got %v, %v", fi.Mode(), err)
	}
}

func TestTheNewestConnectionWins(t *testing.T) {
	h := open(t, config)
	dial := wire(t, h)
	old := dial()
	greet(t, old, agentproto.PhaseBoot)
	h.expect(t, "hello boot")
	young := dial()
	resident(t, h, young)
	h.expect(t, "hello resident")
	closed(t, old)
	send(t, young, agentproto.FromAgent{Ready: &agentproto.Ready{}})
	h.expect(t, "ready 0")
}

func TestWordsAreCleaned(t *testing.T) {
	h := open(t, config)
	c := wire(t, h)()
	greet(t, c, agentproto.PhaseBoot)
	h.expect(t, "hello boot")
	send(t, c, agentproto.FromAgent{Progress: &agentproto.Progress{Stage: "mining"}}) // dropped
	send(t, c, agentproto.FromAgent{Failed: &agentproto.Failed{Stage: "disks\r", Msg: "\x1b]0;owned\x07" + strings.Repeat("x", 9000)}})
	send(t, c, agentproto.FromAgent{Farewell: &agentproto.Farewell{Intent: "revenge"}})
	send(t, c, agentproto.FromAgent{Ready: &agentproto.Ready{Uptime: -1}})
	const cut = 512 - len(`\x1b]0;owned\a`) - len("…")
	h.expect(t, `failed disks\r: \x1b]0;owned\a`+strings.Repeat("x", cut)+"…", "farewell unknown", "ready 0")
}

func TestFiguresAreBounded(t *testing.T) {
	for said, want := range map[agentproto.Stats]agentproto.Stats{
		{CPU: time.Second, MemTotal: 2, MemAvail: 1}:                 {CPU: time.Second, MemTotal: 2, MemAvail: 1},
		{CPU: -1, MemTotal: -1, MemAvail: -1}:                        {},
		{MemTotal: math.MaxInt64, MemAvail: math.MaxInt64}:           {MemTotal: 1 << 50, MemAvail: 1 << 50},
		{CPU: math.MaxInt64, MemTotal: 1 << 30, MemAvail: 1<<30 + 1}: {CPU: math.MaxInt64, MemTotal: 1 << 30, MemAvail: 1 << 30},
	} {
		if got := guest.CleanStats(said); got != want {
			t.Errorf("%+v became %+v, want %+v", said, got, want)
		}
	}
}

// A guest that talks without end is heard at a bounded rate and does not stop Close.
func TestFlood(t *testing.T) {
	h := open(t, config)
	c := wire(t, h)()
	resident(t, h, c)
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for agentproto.WriteFrame(c, agentproto.FromAgent{Ready: &agentproto.Ready{}}) == nil {
		}
	}()
	begun := time.Now()
	for range 40 {
		h.next(t)
	}
	if took := time.Since(begun); took < 500*time.Millisecond {
		t.Errorf("40 events were taken in %v", took)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	<-stopped
}

// Hanging up and dialling again buys a guest nothing: neither events nor lines in the log.
func TestReconnectStorm(t *testing.T) {
	var log lockedBuffer
	dir, events := t.TempDir(), make(chan guest.Event, 1000)
	g, err := guest.Open(dir, config, func(e guest.Event) { events <- e }, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{Guest: g, dir: dir, events: events}
	dial := wire(t, h)
	const storm = 45
	begun := time.Now()
	for range storm {
		c := dial()
		if _, err := io.WriteString(c, "\x00\x00\x00\x02{}"); err != nil {
			t.Fatal(err)
		}
		closed(t, c)
	}
	hello, deadline := residentHello(t, h), time.Now().Add(20*time.Second)
	for len(events) < storm && time.Now().Before(deadline) {
		c := dial()
		if _, err := agent.Greet(c, hello); err == nil { // else too many wait to be heard already
			send(t, c, agentproto.FromAgent{Farewell: &agentproto.Farewell{}})
		}
	}
	if len(events) < storm {
		t.Fatalf("%d events in all", len(events))
	}
	// A burst of each at once, then one in a tenth of a second.
	allowed := 32 + int(time.Since(begun)/(100*time.Millisecond)) + 1
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(log.String(), "\n"); lines == 0 || lines > allowed {
		t.Errorf("%d lines were logged, %d allowed", lines, allowed)
	}
	if allowed < storm {
		t.Errorf("%d events were taken in %v", storm, time.Since(begun))
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A guest that opens connections and says nothing holds no more than a few.
func TestSilentConnections(t *testing.T) {
	h := open(t, config)
	dial := wire(t, h)
	for range 4 {
		dial()
	}
	closed(t, dial())
}

func TestClean(t *testing.T) {
	tests := []struct {
		in    string
		limit int
		want  string
	}{
		{"", 8, ""},
		{"plain text", 64, "plain text"},
		{"größe", 64, "größe"},
		{"a\nb\tc", 64, `a\nb\tc`},
		{"\x1b[31m", 64, `\x1b[31m`},
		{"\x9b31m", 64, `\x9b31m`},
		{"\u202eevil", 64, `\u202eevil`},
		{"12345678", 8, "12345678"},
		{"123456789", 8, "12345…"},
		{"1234\x1b", 8, `1234\x1b`},
		{"12345\x1b", 8, "12345…"},
		{"123456\u00a0", 8, "12345…"},
		{"1234567\u00a0", 8, "12345…"},
	}
	for _, tt := range tests {
		if got := guest.Clean(tt.in, tt.limit); got != tt.want {
			t.Errorf("Clean(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31m\u202e\xff", 16)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 8 || limit > 1<<16 {
			limit = 64
		}
		got := guest.Clean(s, limit)
		if len(got) > limit {
			t.Errorf("%d bytes, limit %d", len(got), limit)
		}
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is not printable", got)
		}
	})
}

// Whatever frame a guest sends, an event that comes of it is printable and bounded.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"failed":{"stage":"x","msg":"\u001b"}}`))
	f.Add([]byte(`{"ready":{"uptime":-5,"services":{"ssh\n":-1}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var frame agentproto.FromAgent
		if len(body) > agentproto.MaxFromAgent || json.Unmarshal(body, &frame) != nil {
			return
		}
		e, ok := guest.CleanEvent(frame)
		if !ok {
			return
		}
		text := show(e)
		if len(text) > 700 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", text)
		}
		if e.Ready != nil {
			for name, up := range e.Ready.Services {
				if len(name) > 64 || up < 0 {
					t.Errorf("service %q at %v", name, up)
				}
			}
		}
	})
}
