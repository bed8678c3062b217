package lifecycle

import (
	"context"
	"net"
	"time"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/vm"
)

// Ping asks a running VM's agent who it is, and says how long that took.
func (m *Manager) Ping(ctx context.Context, caller vm.Caller, selector string) (agentproto.Info, time.Duration, error) {
	v, g, err := m.guestOf(ctx, caller, selector)
	if err != nil {
		return agentproto.Info{}, 0, err
	}
	begun := time.Now()
	if err := g.Ping(ctx); err != nil {
		return agentproto.Info{}, 0, fault.From(err).InOp("ping VM", v.Name).WithLogs(m.layout.ConsoleLog(v.ID))
	}
	took := time.Since(begun)
	info, err := g.Info(ctx)
	if err != nil {
		return agentproto.Info{}, 0, fault.From(err).InOp("ping VM", v.Name).WithLogs(m.layout.ConsoleLog(v.ID))
	}
	return info, took, nil
}

// Dial opens a TCP connection inside a running VM, to its loopback when host is empty.
func (m *Manager) Dial(ctx context.Context, caller vm.Caller, selector, host string, port int) (net.Conn, error) {
	v, g, err := m.guestOf(ctx, caller, selector)
	if err != nil {
		return nil, err
	}
	if port < 1 || port > 65535 {
		return nil, fault.New(fault.Invalid, "port %d is out of range", port).WithOp("dial into VM", v.Name).WithHint("choose 1 to 65535")
	}
	c, err := g.Dial(ctx, host, port)
	if err != nil {
		return nil, fault.From(err).InOp("dial into VM", v.Name)
	}
	return c, nil
}

// Enter is Dial into this very VM, for the daemon's own doors. It is asked for every connection, and so asks the store
// nothing.
func (m *Manager) Enter(ctx context.Context, id vm.ID, port int) (net.Conn, error) {
	l := m.liveOf(id)
	if l == nil {
		return nil, fault.New(fault.WrongState, "it does not run").WithOp("dial into VM", string(id))
	}
	l.mu.Lock()
	// An agent that holds still for a snapshot would move again if it were asked for anything.
	g, serves := l.guest, l.serves && !l.paused && !l.turning
	l.mu.Unlock()
	if !serves {
		return nil, fault.New(fault.WrongState, "it is not up, or stands still").WithOp("dial into VM", string(id))
	}
	return g.Dial(ctx, "", port)
}

// Listeners asks a running VM's guest who listens on which of its TCP ports.
func (m *Manager) Listeners(ctx context.Context, caller vm.Caller, selector string) (agentproto.Listeners, error) {
	v, g, err := m.guestOf(ctx, caller, selector)
	if err != nil {
		return agentproto.Listeners{}, err
	}
	all, err := g.Listeners(ctx)
	if err != nil {
		return agentproto.Listeners{}, fault.From(err).InOp("look into VM", v.Name)
	}
	return all, nil
}

// SSH connects to the SSH server of a running VM's agent.
func (m *Manager) SSH(ctx context.Context, caller vm.Caller, selector string) (net.Conn, error) {
	v, g, err := m.guestOf(ctx, caller, selector)
	if err != nil {
		return nil, err
	}
	c, err := g.SSH(ctx)
	if err != nil {
		return nil, fault.From(err).InOp("connect to VM", v.Name).WithLogs(m.layout.ConsoleLog(v.ID)).
			WithHint("its agent cannot serve it: `banger vm logs %s` may tell why, and a stop and a start make it whole", v.Name)
	}
	return c, nil
}
