package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"banger/internal/agentproto"
)

// How the control connection is kept.
const (
	handshakeBudget = 10 * time.Second
	frameBudget     = 5 * time.Second       // to write one frame
	minRedial       = 50 * time.Millisecond // after a connection that was welcome
	maxRedial       = 2 * time.Second       // while nobody answers: the daemon may be down for days
	refusedRedial   = 30 * time.Second      // a daemon that speaks no version of ours may be replaced
	serviceInterval = 50 * time.Millisecond
)

// ErrRefused is returned by Greet when the host does not want this agent.
var ErrRefused = errors.New("the host refused this agent")

// Greet says Hello on a fresh control connection and returns the host's Welcome. Versions are
// filled in.
func Greet(c net.Conn, hello agentproto.Hello) (agentproto.Welcome, error) {
	hello.MinVersion, hello.MaxVersion = agentproto.MinVersion, agentproto.MaxVersion
	if err := c.SetDeadline(time.Now().Add(handshakeBudget)); err != nil {
		return agentproto.Welcome{}, err
	}
	if err := agentproto.WriteFrame(c, agentproto.FromAgent{Hello: &hello}); err != nil {
		return agentproto.Welcome{}, fmt.Errorf("say hello: %w", err)
	}
	var answer agentproto.FromHost
	if err := agentproto.ReadFrame(c, &answer, agentproto.MaxFromHost); err != nil {
		return agentproto.Welcome{}, fmt.Errorf("await welcome: %w", err)
	}
	switch {
	case answer.Refused != nil:
		return agentproto.Welcome{}, fmt.Errorf("%w: %s", ErrRefused, answer.Refused.Reason)
	case answer.Welcome == nil:
		return agentproto.Welcome{}, errors.New("the host answered hello with something else")
	}
	return *answer.Welcome, c.SetDeadline(time.Time{})
}

// control keeps the control connection of the resident agent.
type control struct {
	agent *Agent

	mu     sync.Mutex
	conn   net.Conn // nil while there is none that was welcomed
	intent agentproto.Intent
	seen   map[string]time.Duration // uptime at which each service was first seen to listen
}

// run dials the host again whenever the connection is lost.
func (h *control) run(ctx context.Context) {
	wait := minRedial
	for ctx.Err() == nil {
		welcomed, err := h.session(ctx)
		switch {
		case errors.Is(err, ErrRefused):
			h.agent.Log.Error("control connection", "error", err)
			wait = refusedRedial
		case welcomed:
			wait = minRedial
		default:
			wait = min(2*wait, maxRedial)
		}
		if pause(ctx, wait) != nil {
			return
		}
	}
}

// session is one control connection from dial to loss.
func (h *control) session(ctx context.Context) (welcomed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := h.agent.DialHost(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	hello := h.agent.Hello
	hello.Phase = agentproto.PhaseResident
	welcome, err := Greet(conn, hello)
	if err != nil {
		return false, err
	}
	// Whatever was missed while nobody talked to us: a pause, a restored snapshot, a daemon's restart.
	if _, err := Follow(h.agent.Machine, welcome.Now, h.agent.Log); err != nil {
		h.agent.Log.Error("control connection", "error", err)
	}
	h.hold(conn)
	defer h.hold(nil)

	ready := make(chan struct{})
	go func() {
		defer close(ready)
		h.reportReady(ctx, conn)
	}()
	// The host sends nothing more in this version: what is read is the connection's end.
	_, err = io.Copy(io.Discard, conn)
	cancel()
	<-ready
	return true, err
}

func (h *control) hold(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = c
}

// reportReady says Ready as soon as every awaited service listens. A daemon that was restarted is
// told again.
func (h *control) reportReady(ctx context.Context, conn net.Conn) {
	for {
		up, err := h.poll()
		if err != nil {
			h.agent.Log.Error("look for listening services", "error", err)
		}
		if up != nil {
			h.send(conn, agentproto.FromAgent{Ready: &agentproto.Ready{Uptime: h.agent.Machine.Uptime(), Services: up}})
			return
		}
		if pause(ctx, serviceInterval) != nil {
			return
		}
	}
}

// poll returns when each service was first seen, or nil while one is missing.
func (h *control) poll() (map[string]time.Duration, error) {
	up := make(map[string]time.Duration, len(h.agent.Services))
	if len(h.agent.Services) == 0 {
		return up, nil
	}
	ports, err := h.agent.Machine.Listening()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.agent.Services {
		since, known := h.seen[s.Name]
		if !known && ports[s.Port] {
			if h.seen == nil {
				h.seen = make(map[string]time.Duration)
			}
			since, known = h.agent.Machine.Uptime(), true
			h.seen[s.Name] = since
		}
		if known {
			up[s.Name] = since
		}
	}
	if len(up) < len(h.agent.Services) {
		return nil, nil
	}
	return up, nil
}

// mean remembers why the guest goes down, for the farewells to come.
func (h *control) mean(i agentproto.Intent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.intent = i
}

// farewell tells the host that the guest is going down, if there is a connection to tell it on.
func (h *control) farewell() {
	h.mu.Lock()
	conn, intent := h.conn, h.intent
	h.mu.Unlock()
	if conn != nil {
		h.send(conn, agentproto.FromAgent{Farewell: &agentproto.Farewell{Intent: intent}})
	}
}

// send writes a frame. When that fails the connection is closed, so that a new one is dialled.
func (h *control) send(conn net.Conn, f agentproto.FromAgent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := conn.SetWriteDeadline(time.Now().Add(frameBudget))
	if err == nil {
		err = agentproto.WriteFrame(conn, f)
	}
	if err != nil {
		_ = conn.Close()
	}
}
