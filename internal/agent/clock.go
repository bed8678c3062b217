package agent

import (
	"fmt"
	"log/slog"
	"time"

	"banger/internal/agentproto"
)

// Clock is a wall clock that can be stepped.
type Clock interface {
	Now() time.Time
	SetClock(now time.Time) error
}

// Follow steps a clock that is off by more than the protocol tolerates, and returns how far it was
// behind. It is stepped, not slewed: what the guest missed while it stood still never comes back.
func Follow(c Clock, now time.Time, log *slog.Logger) (off time.Duration, err error) {
	off = now.Sub(c.Now().Round(0)) // without the monotonic reading, which knows nothing of the wall clock
	if !agentproto.ClockIsOff(off) {
		return off, nil
	}
	if err := c.SetClock(now); err != nil {
		return off, fmt.Errorf("set the clock: %w", err)
	}
	log.Info("the clock was stepped", "by", off)
	return off, nil
}
