package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"banger/internal/agentproto"
	"banger/internal/relay"
)

// Bounds of what the host may ask at once. They keep the agent small, not the host out.
const (
	maxRequests   = 64  // requests that are being answered
	maxDials      = 256 // streams
	requestBudget = 10 * time.Second
	dialBudget    = 10 * time.Second
	closeBudget   = 30 * time.Second // for the host to close a stream that has ended both ways
	changeBudget  = time.Minute      // for the disks to be written, or another identity to be in effect
)

// requests answers the host.
type requests struct {
	agent   *Agent
	control *control
	open    chan struct{} // holds a token for each request that is being answered
	dials   chan struct{} // and one for each stream

	mu       sync.Mutex
	sessions context.Context // of the SSH connections that there are
	hangUp   context.CancelFunc

	adopting sync.Mutex // held while the guest becomes another: a host that lost the answer asks again
}

func (r *requests) serve(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := r.agent.Listener.Accept()
		if err != nil {
			return err
		}
		select {
		case r.open <- struct{}{}: // each is given back within a request's budget
		case <-ctx.Done():
			_ = conn.Close()
			return net.ErrClosed
		}
		wg.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			r.handle(ctx, conn)
		})
	}
}

// handle serves one request connection and gives its token back.
func (r *requests) handle(ctx context.Context, conn net.Conn) {
	release := sync.OnceFunc(func() { <-r.open })
	defer release()
	if conn.SetDeadline(time.Now().Add(requestBudget)) != nil {
		return
	}
	var req agentproto.Request
	if agentproto.ReadFrame(conn, &req, agentproto.MaxFromHost) != nil {
		return
	}
	if req.Op != agentproto.OpHold && req.Op != agentproto.OpAdopt {
		r.control.release()
	}
	switch {
	case req.Op == agentproto.OpPing:
		r.answer(conn, agentproto.Response{})
	case req.Op == agentproto.OpInfo:
		info := r.agent.Machine.Info()
		r.answer(conn, agentproto.Response{Info: &info})
	case req.Op == agentproto.OpStats:
		stats := r.agent.Machine.Stats()
		r.answer(conn, agentproto.Response{Stats: &stats})
	case req.Op == agentproto.OpListen:
		listeners, err := r.agent.Machine.Listeners()
		resp := outcome(err)
		resp.Listeners = &listeners
		r.answer(conn, resp)
	case req.Op == agentproto.OpShutdown && req.Shutdown != nil:
		if r.answer(conn, agentproto.Response{}) {
			r.control.mean(req.Shutdown.Intent)
			r.control.farewell()
			r.endSessions()
			r.agent.Machine.Restart()
		}
	case req.Op == agentproto.OpClock && req.Clock != nil:
		r.answer(conn, r.follow(req.Clock.Now))
	case req.Op == agentproto.OpGrow && req.Grow != nil:
		ctx, cancel := context.WithTimeout(ctx, requestBudget)
		defer cancel()
		r.answer(conn, outcome(r.agent.Machine.Grow(ctx, req.Grow.Device, req.Grow.Size)))
	case req.Op == agentproto.OpRename && req.Rename != nil:
		r.answer(conn, outcome(r.agent.Machine.Rename(req.Rename.Hostname)))
	case req.Op == agentproto.OpHold && req.Hold != nil:
		r.answerLate(conn, func() agentproto.Response { return r.hold(*req.Hold) })
	case req.Op == agentproto.OpAdopt && req.Adopt != nil:
		r.answerLate(conn, func() agentproto.Response { return r.adopt(ctx, *req.Adopt) })
	case req.Op == agentproto.OpDial && req.Dial != nil:
		r.stream(conn, release, func() { r.dial(ctx, conn, *req.Dial) })
	case req.Op == agentproto.OpSSH:
		r.stream(conn, release, func() { r.ssh(ctx, conn) })
	default:
		r.answer(conn, agentproto.Response{Error: fmt.Sprintf("this agent knows no request %q", req.Op)})
	}
}

// outcome answers a request that asks for nothing but that it be done.
func outcome(err error) agentproto.Response {
	if err != nil {
		return agentproto.Response{Error: err.Error()}
	}
	return agentproto.Response{}
}

func (r *requests) follow(now time.Time) agentproto.Response {
	off, err := Follow(r.agent.Machine, now, r.agent.Log)
	if err != nil {
		return agentproto.Response{Error: err.Error()}
	}
	return agentproto.Response{Clock: &agentproto.Clocked{Off: off}}
}

func (r *requests) answer(conn net.Conn, resp agentproto.Response) bool {
	return agentproto.WriteFrame(conn, resp) == nil
}

// answerLate is for what takes longer than other requests.
func (r *requests) answerLate(conn net.Conn, change func() agentproto.Response) {
	if conn.SetDeadline(time.Now().Add(changeBudget)) == nil {
		r.answer(conn, change())
	}
}

// stream serves a request whose connection stays open. It counts among the streams instead of the requests.
func (r *requests) stream(conn net.Conn, release, serve func()) {
	select {
	case r.dials <- struct{}{}:
		defer func() { <-r.dials }()
		release()
		serve()
	default:
		r.answer(conn, agentproto.Response{Error: fmt.Sprintf("%d connections are open already", maxDials)})
	}
}

// ssh has the host speak SSH to the agent, until the guest goes down.
func (r *requests) ssh(ctx context.Context, conn net.Conn) {
	serve, err := r.agent.SSH()
	if err != nil {
		r.answer(conn, outcome(err))
		return
	}
	if !r.answer(conn, agentproto.Response{}) || conn.SetDeadline(time.Time{}) != nil {
		return
	}
	r.mu.Lock()
	sessions := r.sessions
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(sessions, cancel)()
	serve(ctx, conn)
}

// endSessions ends the SSH connections that there are, since the guest goes down. It may yet go on living: a stray signal looks
// the same. Then there are others.
func (r *requests) endSessions() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hangUp != nil {
		r.hangUp()
	}
	r.sessions, r.hangUp = context.WithCancel(context.Background())
}

// dial connects the host to a TCP port of the guest.
func (r *requests) dial(ctx context.Context, conn net.Conn, d agentproto.Dial) {
	tcp, err := dialTCP(ctx, d)
	if err != nil {
		r.answer(conn, agentproto.Response{Error: err.Error()})
		return
	}
	defer func() { _ = tcp.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	defer stop()
	if !r.answer(conn, agentproto.Response{}) || conn.SetDeadline(time.Time{}) != nil {
		return
	}
	splice(agentproto.NewStream(conn), tcp)
}

// dialTCP connects to a port; without a host, to whichever of the guest's own addresses answers, its loopback's first.
func dialTCP(ctx context.Context, d agentproto.Dial) (*net.TCPConn, error) {
	hosts := []string{d.Host}
	if d.Host == "" {
		hosts = ownAddresses()
	}
	dialer := net.Dialer{Timeout: dialBudget / time.Duration(2*len(hosts))}
	var first error
	for _, h := range hosts {
		c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(h, strconv.Itoa(d.Port)))
		if err == nil {
			return c.(*net.TCPConn), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// ownAddresses are the loopback's, and then others that a service may be bound to alone.
func ownAddresses() []string {
	hosts := []string{"127.0.0.1", "::1"}
	all, _ := net.InterfaceAddrs() // without them there is the loopback
	for _, a := range all {
		if p, ok := a.(*net.IPNet); ok && p.IP.IsGlobalUnicast() {
			hosts = append(hosts, p.IP.String())
		}
	}
	return hosts
}

// splice joins a stream to a connection. A failure is passed on as a failure: a reset stays distinguishable from everything
// having been sent.
func splice(s *agentproto.Stream, tcp *net.TCPConn) {
	err := relay.Both(s, tcp, func() {
		_ = tcp.SetLinger(0) // closes with a reset
		_ = tcp.Close()
		_ = s.Close()
	})
	if err == nil {
		awaitClose(s)
	}
}

// awaitClose waits for the host, which closes first: see agentproto.Stream.
func awaitClose(s *agentproto.Stream) {
	if s.SetReadDeadline(time.Now().Add(closeBudget)) == nil {
		_, _ = io.Copy(io.Discard, s.Conn)
	}
}
