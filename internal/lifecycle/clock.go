package lifecycle

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/agentproto"
	"banger/internal/vm"
)

// Bounds of telling guests the time.
const (
	clockBudget = 5 * time.Second // for one guest to answer
	clocksAside = 64              // guests that are told side by side
)

// SetClocks tells all running guests the time, after the host was suspended or its clock was set. A guest
// that does not answer costs its own time only.
//
// A guest that boots, or whose agent has lost its connection to a daemon that was restarted, is told when
// its agent says hello.
func (m *Manager) SetClocks(ctx context.Context) {
	m.mu.Lock()
	all := make(map[vm.ID]*live, len(m.live))
	for id, l := range m.live {
		all[id] = l
	}
	m.mu.Unlock()
	var eg errgroup.Group
	eg.SetLimit(clocksAside)
	for id, l := range all {
		if l.isPaused() { // it is told when it goes on
			continue
		}
		select {
		case <-l.ready:
			eg.Go(func() error { m.setClock(ctx, id, l); return nil })
		default:
		}
	}
	_ = eg.Wait() // none returns an error
}

// setClock tells one guest the time, after it was paused. It never fails what it belongs to: a guest that
// does not answer, or whose agent is too old to know the request, is logged once and keeps its own time.
func (m *Manager) setClock(ctx context.Context, id vm.ID, l *live) {
	ctx, cancel := context.WithTimeout(ctx, clockBudget)
	defer cancel()
	behind, err := l.agent().SetClock(ctx)
	l.mu.Lock()
	first := !l.timeless
	l.timeless = err != nil
	l.mu.Unlock()
	switch {
	case err != nil && first:
		m.log.Warn("tell the guest the time", "id", id, "error", err)
	case err == nil && agentproto.ClockIsOff(behind):
		m.log.Info("the guest's clock was stepped", "id", id, "by", behind)
	}
}
