package hosttest

import (
	"context"
	"errors"
	"time"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/vm"
)

// What every fake process, guest and TAP has used. Looking is no effect: nothing is left behind.
const (
	usedCPU    = 3 * time.Second
	usedRSS    = 100 * vm.MiB
	usedShared = 90 * vm.MiB
)

// SetOldAgents makes the agents of all guests forget requests that came with later releases.
func (h *Host) SetOldAgents(old bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.oldAgents = old
}

// Asked is how often guests were asked what they use.
func (h *Host) Asked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// Use implements lifecycle.Meter.
func (h *Host) Use(p vm.Process, shared bool) (vm.Usage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.procs[p.PID] == nil {
		return vm.Usage{}, errors.New("no such process")
	}
	u := vm.Usage{CPU: usedCPU, RSS: usedRSS}
	if shared {
		u.PSS = usedShared
	}
	return u, nil
}

// Traffic implements lifecycle.Meter: each TAP has sent twice what it received.
func (h *Host) Traffic() (map[string]vm.Traffic, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]vm.Traffic{}
	for tap := range h.taps {
		all[tap] = vm.Traffic{RxBytes: 1000, RxPackets: 10, TxBytes: 2000, TxPackets: 20}
	}
	return all, nil
}

// Stats implements lifecycle.Guest.
func (g *guest) Stats(context.Context) (agentproto.Stats, error) {
	err := g.answer()
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	g.host.asked++
	if g.host.oldAgents {
		err = fault.New(fault.Unavailable, `the guest answered: this agent knows no request "stats"`)
	}
	if err != nil {
		return agentproto.Stats{}, err
	}
	return agentproto.Stats{CPU: time.Second, MemTotal: vm.GiB, MemAvail: vm.GiB / 4}, nil
}
