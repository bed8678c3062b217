package daemon

import (
	"context"
	"time"

	"banger/internal/agentproto"
)

// clockInterval is how often the host's clocks are compared.
const clockInterval = 2 * time.Second

// drift returns how far the host's wall clock has run ahead of its monotonic one since start. Neither
// load nor NTP's slewing moves it, which goes for both; a clock that is set does, and so does a suspend,
// through which the monotonic clock stands still, as guests do.
func drift(start time.Time) time.Duration {
	now := time.Now()
	return now.Round(0).Sub(start.Round(0)) - now.Sub(start)
}

// watchClock calls jumped whenever the drift has changed by more than guests tolerate, until ctx ends.
func watchClock(ctx context.Context, drift func() time.Duration, jumped func(by time.Duration)) {
	tick := time.NewTicker(clockInterval)
	defer tick.Stop()
	for known := drift(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := drift(); (now - known).Abs() > agentproto.ClockTolerance {
			by := now - known
			known = now
			jumped(by)
		}
	}
}

// keepClocks has guests follow the host's clock, until the returned function is called, which waits.
func (d *Daemon) keepClocks(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchClock(ctx, func() time.Duration { return drift(d.started) }, func(by time.Duration) {
			d.log.Info("the host was suspended, or its clock was set; guests are told the time", "by", by)
			d.manager.SetClocks(ctx)
		})
	}()
	return func() { cancel(); <-done }
}
