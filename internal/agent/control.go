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
	serviceInterval = 50 * time.Millisecond // at least, between two looks at what listens
	serviceRest     = 20                    // times what a look took: it reads all sockets, while the guest has to boot
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
	again chan struct{} // holds a token when the host is to be dialled without a further wait

	mu       sync.Mutex
	conn     net.Conn // nil while there is none that was welcomed
	identity Identity
	intent   agentproto.Intent
	seen     map[string]time.Duration // uptime at which each service was first seen to listen
	until    time.Time                // no session begins before
	end      func()                   // ends the session there is, and returns once it is over; nil without one
}

// run dials the host again whenever the connection is lost.
func (h *control) run(ctx context.Context) {
	wait := minRedial
	for ctx.Err() == nil {
		session, done, held := h.begin(ctx)
		if held > 0 {
			h.rest(ctx, held)
			continue
		}
		welcomed, err := h.session(session)
		done()
		switch {
		case errors.Is(err, ErrRefused):
			h.agent.Log.Error("control connection", "error", err)
			wait = refusedRedial
		case welcomed:
			wait = minRedial
		default:
			wait = min(2*wait, maxRedial)
		}
		h.rest(ctx, wait)
	}
}

// rest waits for d, or until the host is to be dialled at once.
func (h *control) rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-h.again:
	case <-t.C:
	}
}

// begin says how long no session may begin yet, or begins one that is over when done is called.
func (h *control) begin(ctx context.Context) (session context.Context, done func(), held time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := time.Until(h.until); held > 0 {
		return nil, nil, held
	}
	session, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	h.end = func() {
		cancel()
		<-over
	}
	return session, func() {
		cancel()
		close(over)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.end = nil
	}, 0
}

// hold closes the connection and keeps another from being dialled for a while. When it returns, nothing that the control
// connection had to send is left.
func (h *control) hold(d time.Duration) {
	h.mu.Lock()
	h.until = time.Now().Add(d)
	end := h.end
	h.mu.Unlock()
	if end != nil {
		end()
	}
}

// release ends a hold.
func (h *control) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until.IsZero() {
		return
	}
	h.until = time.Time{}
	select {
	case h.again <- struct{}{}:
	default: // it is dialled at once already
	}
}

// become is what the next session begins with.
func (h *control) become(identity Identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.identity, h.seen = identity, nil
}

// session is one control connection from dial to loss.
func (h *control) session(ctx context.Context) (welcomed bool, err error) {
	conn, err := h.agent.DialHost(ctx)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = conn.Close()
	})
	defer func() {
		cancel()
		<-closed // by then the kernel has it, too
	}()

	hello := h.agent.Hello
	hello.Phase = agentproto.PhaseResident
	h.mu.Lock()
	hello.Token = h.identity.Token
	h.mu.Unlock()
	welcome, err := Greet(conn, hello)
	if err != nil {
		return false, err
	}
	// Whatever was missed while nobody talked to us: a pause, a restored snapshot, a daemon's restart.
	if _, err := Follow(h.agent.Machine, welcome.Now, h.agent.Log); err != nil {
		h.agent.Log.Error("control connection", "error", err)
	}
	h.use(conn)
	defer h.use(nil)

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

func (h *control) use(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = c
}

// reportReady says Ready as soon as every awaited service listens. A daemon that was restarted is
// told again.
func (h *control) reportReady(ctx context.Context, conn net.Conn) {
	for {
		begun := time.Now()
		up, err := h.poll()
		if err != nil {
			h.agent.Log.Error("look for listening services", "error", err)
		}
		if up != nil {
			h.send(conn, agentproto.FromAgent{Ready: &agentproto.Ready{Uptime: h.agent.Machine.Uptime(), Services: up}})
			return
		}
		if pause(ctx, max(serviceInterval, serviceRest*time.Since(begun))) != nil {
			return
		}
	}
}

// poll returns when each service was first seen, or nil while one is missing.
func (h *control) poll() (map[string]time.Duration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	services := h.identity.Services
	up := make(map[string]time.Duration, len(services))
	if len(services) == 0 {
		return up, nil
	}
	ports, err := h.agent.Machine.Listening()
	if err != nil {
		return nil, err
	}
	for _, s := range services {
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
	if len(up) < len(services) {
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
