package hosttest

import (
	"context"
	"time"

	"banger/internal/agentproto"
	"banger/internal/vm"
)

// Sleep is the host's suspend: the clocks of all guests stand still for so long.
func (h *Host) Sleep(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		p.behind += d
	}
}

// Behind is how far a running guest's clock is behind.
func (h *Host) Behind(id vm.ID) time.Duration {
	_, p := h.find(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.behind
}

// SetClock implements lifecycle.Guest. It is no effect: nothing that is left behind depends on it. A deaf
// guest keeps whoever asks waiting.
func (g *guest) SetClock(ctx context.Context) (time.Duration, error) {
	if err := g.answer(); err != nil {
		<-ctx.Done()
		return 0, err
	}
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	var behind time.Duration
	for _, p := range g.host.procs {
		if p.dir == g.dir {
			behind, p.behind = p.behind, 0
		}
	}
	return behind, nil
}

// Config is what the guest of a VM that has booted here, or goes on here from a snapshot, was told.
func (h *Host) Config(id vm.ID) agentproto.GuestConfig {
	_, p := h.find(id)
	h.mu.Lock()
	g := h.guests[p.dir]
	h.mu.Unlock()
	return g.config()
}
