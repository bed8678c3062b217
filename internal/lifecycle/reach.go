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
