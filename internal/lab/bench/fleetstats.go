package bench

import (
	"context"
	"time"

	"banger/internal/client"
	"banger/internal/host/proc"
)

// looks is how often in a row all VMs' stats are asked for, a second apart as `banger vm stats` does: long enough that
// each guest is asked twice.
const looks = 11

// watch returns what a core of the daemon is busy with while somebody watches what all VMs use: 1 is all of it.
func (r *fleet) watch(ctx context.Context) (share float64, err error) {
	used, err := proc.CPUTime(r.process, "")
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range looks {
		if _, err := r.client.Stats(ctx, client.StatsQuery{}); err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-tick.C:
		}
	}
	now, err := proc.CPUTime(r.process, "")
	return (now - used).Seconds() / time.Since(begun).Seconds(), err
}
