package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/vm"
)

// requestBudget bounds a request whose context has no earlier deadline. The agent's own bounds are
// as long.
const requestBudget = 15 * time.Second

// changeBudget is that of a request for which the guest writes its disks or becomes another.
const changeBudget = time.Minute

const silentHint = "the guest may be booting, overloaded or halted: see `banger vm logs`; `banger vm kill` ends it without asking it"

// Ping asks whether the agent answers.
func (g *Guest) Ping(ctx context.Context) error {
	_, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpPing})
	return err
}

// Info asks what the guest is.
func (g *Guest) Info(ctx context.Context) (agentproto.Info, error) {
	resp, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpInfo})
	if err != nil {
		return agentproto.Info{}, err
	}
	if resp.Info == nil {
		return agentproto.Info{}, silent(errors.New("its answer is empty"))
	}
	return cleanInfo(*resp.Info), nil
}

// Stats asks what the guest uses.
func (g *Guest) Stats(ctx context.Context) (agentproto.Stats, error) {
	resp, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpStats})
	if err != nil {
		return agentproto.Stats{}, err
	}
	if resp.Stats == nil {
		return agentproto.Stats{}, silent(errors.New("its answer is empty"))
	}
	return cleanStats(*resp.Stats), nil
}

// Listeners asks who listens on which of the guest's TCP ports.
func (g *Guest) Listeners(ctx context.Context) (agentproto.Listeners, error) {
	resp, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpListen})
	if err != nil && strings.Contains(fault.From(err).Msg, "knows no request") {
		err = fault.New(fault.Incompatible, "its agent is too old to say who listens").
			WithHint("stop and start the VM: it boots with the agent of this banger")
	}
	if err != nil {
		return agentproto.Listeners{}, err
	}
	if resp.Listeners == nil {
		return agentproto.Listeners{}, silent(errors.New("its answer is empty"))
	}
	return cleanListeners(*resp.Listeners), nil
}

// Shutdown asks the guest to go down in order. It returns once the agent has agreed; the end itself
// shows in the hypervisor.
func (g *Guest) Shutdown(ctx context.Context, intent agentproto.Intent) error {
	_, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpShutdown, Shutdown: &agentproto.Shutdown{Intent: intent}})
	return err
}

// clockTries is how often the guest is told the time when it was slow to hear it.
const clockTries = 3

// SetClock tells the guest the time, and returns how far its clock was behind. A guest that took long to
// answer, because it was paused or starved meanwhile, has set its clock by what was true before: it is
// told once more.
func (g *Guest) SetClock(ctx context.Context) (behind time.Duration, err error) {
	for try := range clockTries {
		begun := time.Now()
		resp, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpClock})
		if err != nil {
			return 0, err
		}
		if resp.Clock == nil {
			return 0, silent(errors.New("its answer is empty"))
		}
		if try == 0 {
			behind = resp.Clock.Off
		}
		if time.Since(begun) <= agentproto.ClockTolerance {
			break
		}
	}
	return behind, nil
}

// Grow has the guest enlarge the file system on a disk that is larger now, to size bytes.
func (g *Guest) Grow(ctx context.Context, device string, size int64) error {
	_, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpGrow, Grow: &agentproto.Grow{Device: device, Size: size}})
	return err
}

// Rename gives the guest another hostname.
func (g *Guest) Rename(ctx context.Context, hostname string) error {
	_, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpRename, Rename: &agentproto.Rename{Hostname: hostname}})
	return err
}

// Dial connects to a TCP port inside the guest, on its loopback or another address of its own when host is empty. The connection
// has CloseWrite, and closes each way by itself: it is an *agentproto.Stream.
func (g *Guest) Dial(ctx context.Context, host string, port int) (net.Conn, error) {
	conn, _, err := g.request(ctx, agentproto.Request{Op: agentproto.OpDial, Dial: &agentproto.Dial{Host: host, Port: port}})
	if err != nil {
		return nil, err
	}
	return agentproto.NewStream(conn), nil
}

// SSH connects to the agent's SSH server. The connection is the hypervisor's end of the vsock itself: SSH tells the end of each
// way by its own means, and needs no chunks for it.
func (g *Guest) SSH(ctx context.Context) (net.Conn, error) {
	conn, _, err := g.request(ctx, agentproto.Request{Op: agentproto.OpSSH})
	return conn, err
}

// ask is a request that ends with its response.
func (g *Guest) ask(ctx context.Context, req agentproto.Request) (agentproto.Response, error) {
	conn, resp, err := g.request(ctx, req)
	if err != nil {
		return resp, err
	}
	return resp, conn.Close()
}

// request opens a request connection and returns it with the agent's response to req.
func (g *Guest) request(ctx context.Context, req agentproto.Request) (net.Conn, agentproto.Response, error) {
	budget := requestBudget
	if req.Hold != nil || req.Adopt != nil {
		budget = changeBudget
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	conn, err := g.connect(ctx)
	if err != nil {
		return nil, agentproto.Response{}, g.blame(ctx, err)
	}
	resp, err := exchange(ctx, conn, req)
	if err != nil {
		_ = conn.Close()
		return nil, agentproto.Response{}, g.blame(ctx, err)
	}
	if resp.Error != "" {
		_ = conn.Close()
		return nil, agentproto.Response{}, fault.New(fault.Unavailable, "the guest answered: %s", Clean(resp.Error, maxMsg)).
			WithHint("check inside the guest, for example with `banger vm ssh`")
	}
	return conn, resp, nil
}

// connect dials the hypervisor's end of the vsock device.
func (g *Guest) connect(ctx context.Context) (net.Conn, error) {
	g.mu.Lock()
	if g.ctx.Err() != nil { // from then on the descriptor may be another file's
		g.mu.Unlock()
		return nil, net.ErrClosed
	}
	g.tasks.Add(1)
	g.mu.Unlock()
	defer g.tasks.Done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", socketPath(g.dir, vm.FileVsock))
}

// exchange has the hypervisor connect to the agent, sends req and reads the response. When it
// succeeds the connection has no deadline.
func exchange(ctx context.Context, conn net.Conn, req agentproto.Request) (agentproto.Response, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return agentproto.Response{}, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	var resp agentproto.Response
	err := handshake(conn)
	switch { // no earlier: by now somebody listens
	case req.Op == agentproto.OpClock:
		req.Clock = &agentproto.Clock{Now: time.Now()}
	case req.Adopt != nil:
		req.Adopt.Now = time.Now()
	}
	if err == nil {
		err = agentproto.WriteFrame(conn, req)
	}
	if err == nil {
		err = agentproto.ReadFrame(conn, &resp, agentproto.MaxFromAgent)
	}
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		stop()
		return agentproto.Response{}, err
	}
	return resp, conn.SetDeadline(time.Time{})
}

// handshake speaks Firecracker's part: "CONNECT <port>\n", answered with "OK <port>\n", or with the
// connection's end when nobody in the guest listens (its docs/vsock.md).
func handshake(conn net.Conn) error {
	if _, err := io.WriteString(conn, "CONNECT "+strconv.Itoa(agentproto.RequestPort)+"\n"); err != nil {
		return err
	}
	// Byte by byte: what follows the line belongs to the agent.
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(conn, b); err != nil {
			return err
		}
		if b[0] == '\n' {
			break
		}
		if line = append(line, b[0]); len(line) > 16 {
			break
		}
	}
	if !bytes.HasPrefix(line, []byte("OK ")) {
		return fmt.Errorf("the hypervisor answered %q", line)
	}
	return nil
}

// blame turns a failed exchange into an error for people.
func (g *Guest) blame(ctx context.Context, err error) error {
	switch {
	case g.ctx.Err() != nil:
		return fault.New(fault.Unavailable, "the VM is not running any more: %w", err)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return fault.New(fault.Canceled, "called off while the guest's agent was being asked: %w", context.Cause(ctx))
	default:
		return silent(err)
	}
}

func silent(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // its addresses are descriptors of ours
	}
	return fault.New(fault.Unavailable, "the guest's agent does not answer: %w", err).WithHint(silentHint)
}
