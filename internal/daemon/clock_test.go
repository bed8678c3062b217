package daemon

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchClock(t *testing.T) {
	steps := []time.Duration{
		0,
		90 * time.Minute, // a suspend
		0,
		-3 * time.Second, // the clock is set
		60 * time.Millisecond,
		60 * time.Millisecond, // little by little
		0,
		100 * time.Millisecond, // no more than guests tolerate
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var now time.Duration
		var told []time.Duration
		watchClock(ctx, func() time.Duration {
			if len(steps) == 0 {
				cancel()
				return now
			}
			now += steps[0]
			steps = steps[1:]
			return now
		}, func(by time.Duration) { told = append(told, by) })
		want := []time.Duration{90 * time.Minute, -3 * time.Second, 120 * time.Millisecond}
		if !slices.Equal(told, want) {
			t.Errorf("guests were told after %v, want %v", told, want)
		}
	})
}

// A host that stays awake and whose clock nobody sets has next to none, however long it runs.
func TestDrift(t *testing.T) {
	if by := drift(time.Now().Add(-time.Hour)); by.Abs() > time.Second {
		t.Errorf("the clocks have drifted by %v", by)
	}
}
