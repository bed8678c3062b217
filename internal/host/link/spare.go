package link

import (
	"context"
	"net"

	"github.com/vishvananda/netlink"
)

// Spare TAPs stand on the first bridge, down, so that a VM needs no new one. Who takes one gives it the VM's name, which is in a
// record by then: so a spare one is known by its name, and any other by its record.

// KeepSpares makes what is missing of the spare TAPs, now and whenever one was taken, until ctx ends.
func (l *Links) KeepSpares(ctx context.Context, failed func(error)) {
	for {
		if err := l.Fill(ctx); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-l.taken:
		}
	}
}

// refill says that a spare TAP may be missing.
func (l *Links) refill() {
	select {
	case l.taken <- struct{}{}:
	default: // it is said already
	}
}

// Fill makes what is missing of the spare TAPs, one after another, so that no VM waits for all of them. Where no VM's TAP
// is on that bridge there are none.
func (l *Links) Fill(ctx context.Context) error {
	for n := range l.spares {
		if err := l.fill(ctx, l.tag.Spare(n)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Links) fill(ctx context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	bridge := l.tag.Bridge(0)
	if err := ctx.Err(); err != nil || !l.used[bridge] {
		return err
	}
	master, err := find(bridge)
	if err != nil || master == nil {
		return explain("find bridge", bridge, err)
	}
	return explain("make spare TAP", name, ensureTAP(name, master, createTAP))
}

// takeOrCreate makes a TAP: of a spare one, or a new one.
func (l *Links) takeOrCreate(name string) error {
	for n := range l.spares {
		spare, err := find(l.tag.Spare(n))
		if err != nil {
			return err
		}
		if spare != nil && isTAP(spare) && spare.Attrs().Flags&net.FlagUp == 0 {
			return netlink.LinkSetName(spare, name)
		}
	}
	return createTAP(name)
}

// Spares counts the spare TAPs that are there, and tells how many are to be.
func (l *Links) Spares() (idle, size int, err error) {
	for n := range l.spares {
		spare, err := find(l.tag.Spare(n))
		if err != nil {
			return idle, l.spares, explain("find spare TAP", l.tag.Spare(n), err)
		}
		if spare != nil {
			idle++
		}
	}
	return idle, l.spares, nil
}
