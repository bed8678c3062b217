package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"banger/internal/agentproto"
)

// Bounds of what a guest may do to us.
const (
	helloBudget   = 5 * time.Second        // from a connection to its Hello
	welcomeBudget = 5 * time.Second        // for the guest to take our answer
	maxPending    = 4                      // connections that have not said Hello
	acceptPause   = 20 * time.Millisecond  // between two connections
	burst         = 32                     // events that are taken at once, and complaints that are logged
	burstPause    = 100 * time.Millisecond // between two beyond that
)

// accept takes connections, slowly enough that a guest that dials in a loop costs nothing.
func (g *Guest) accept() {
	pending := make(chan struct{}, maxPending)
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			if g.ctx.Err() != nil {
				return
			}
			g.log.Error("accept control connection", "dir", g.dir.Name(), "error", err)
		} else {
			g.admit(conn, pending)
		}
		if !g.pause(acceptPause) {
			return
		}
	}
}

func (g *Guest) admit(conn net.Conn, pending chan struct{}) {
	select {
	case pending <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	g.tasks.Go(func() {
		defer conn.Close()
		stop := context.AfterFunc(g.ctx, func() { _ = conn.Close() })
		defer stop()
		hello, err := g.greet(conn)
		if err == nil && !g.pace() {
			err = net.ErrClosed
		}
		<-pending
		if err == nil {
			err = g.listen(conn, hello)
		}
		if err != nil && g.ctx.Err() == nil && g.complaints.take(time.Now()) {
			g.log.Warn("control connection", "dir", g.dir.Name(), "error", Clean(err.Error(), maxMsg))
		}
	})
}

// greet answers a connection's Hello.
func (g *Guest) greet(conn net.Conn) (agentproto.Hello, error) {
	if err := conn.SetDeadline(time.Now().Add(helloBudget)); err != nil {
		return agentproto.Hello{}, err
	}
	var f agentproto.FromAgent
	if err := agentproto.ReadFrame(conn, &f, agentproto.MaxFromAgent); err != nil {
		return agentproto.Hello{}, err
	}
	if f.Hello == nil {
		return agentproto.Hello{}, errors.New("it did not begin with hello")
	}
	if err := conn.SetDeadline(time.Now().Add(welcomeBudget)); err != nil {
		return agentproto.Hello{}, err
	}
	welcome, err := g.welcome(*f.Hello)
	if err != nil {
		return agentproto.Hello{}, errors.Join(err, agentproto.WriteFrame(conn, agentproto.FromHost{Refused: &agentproto.Refused{Reason: err.Error()}}))
	}
	if err := agentproto.WriteFrame(conn, agentproto.FromHost{Welcome: &welcome}); err != nil {
		return agentproto.Hello{}, err
	}
	if welcome.Config != nil {
		g.setBooted() // no later: once init runs, who asks may be anybody
	}
	return cleanHello(*f.Hello), conn.SetDeadline(time.Time{})
}

func (g *Guest) welcome(hello agentproto.Hello) (agentproto.Welcome, error) {
	version, err := agentproto.Negotiate(hello.MinVersion, hello.MaxVersion)
	if err != nil {
		return agentproto.Welcome{}, err
	}
	w := agentproto.Welcome{Version: version}
	switch hello.Phase {
	case agentproto.PhaseBoot:
		if g.hasBooted() {
			return agentproto.Welcome{}, errors.New("this VM has booted already")
		}
		w.Config, w.Token = new(g.config()), g.token
	case agentproto.PhaseResident:
		if !g.knows(hello.Token) {
			return agentproto.Welcome{}, errors.New("this is not the agent that was left in the guest")
		}
	default:
		return agentproto.Welcome{}, errors.New("hello names no phase that this host knows")
	}
	w.Now = time.Now()
	return w, nil
}

func (g *Guest) hasBooted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.booted
}

func (g *Guest) setBooted() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.booted = true
}

// listen makes conn the current connection and delivers what comes from it until it ends or a newer
// one takes its place.
func (g *Guest) listen(conn net.Conn, hello agentproto.Hello) error {
	g.mu.Lock()
	if g.current != nil {
		_ = g.current.Close()
	}
	g.current = conn
	g.mu.Unlock()
	g.emit(conn, Event{Hello: &hello})
	for {
		var f agentproto.FromAgent
		if err := agentproto.ReadFrame(conn, &f, agentproto.MaxFromAgent); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if e, ok := clean(f); ok {
			g.emit(conn, e)
		}
		if !g.pace() {
			return nil
		}
	}
}

// pace keeps a guest that talks without end, on one connection or on ever new ones, at our pace; its own
// buffers fill up. It reports whether the guest is still open.
func (g *Guest) pace() bool {
	for !g.words.take(time.Now()) {
		if !g.pause(burstPause) {
			return false
		}
	}
	return true
}

// allowance is a right to burst things at once, and to one more in each burstPause.
type allowance struct {
	mu    sync.Mutex
	spent int
	since time.Time // when spent was right
}

func (a *allowance) take(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if back := now.Sub(a.since) / burstPause; back > 0 {
		a.spent, a.since = max(0, a.spent-int(min(back, burst))), now
	}
	if a.spent == burst {
		return false
	}
	a.spent++
	return true
}

// emit delivers an event if conn still is the current connection.
func (g *Guest) emit(conn net.Conn, e Event) {
	g.deliver.Lock()
	defer g.deliver.Unlock()
	g.mu.Lock()
	stale := g.current != conn || g.ctx.Err() != nil
	g.mu.Unlock()
	if !stale {
		g.events(e)
	}
}

// pause waits, and reports whether the guest is still open.
func (g *Guest) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-g.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
