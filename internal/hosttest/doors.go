package hosttest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"banger/internal/fault"
	"banger/internal/vm"
)

// doors are listeners of the daemon's: they go when it is killed.
type doors struct{ *Host }

// Doors implements door.Doors.
func (h *Host) Doors() doors { return doors{h} } //nolint:revive // it is used through interfaces

// Take has another process listen where no door can be then.
func (h *Host) Take(at netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken[at] = true
}

// Leave has it listen no more.
func (h *Host) Leave(at netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.taken, at)
}

func (h doors) Open(_ context.Context, id vm.ID, all vm.Doors) map[vm.Door]error {
	h.mu.Lock()
	defer h.mu.Unlock()
	closed := map[vm.Door]error{}
	if !slices.Equal(h.doors[id], all) {
		if err := h.effect("open doors"); err != nil {
			for _, d := range all {
				closed[d] = err
			}
			return closed
		}
	}
	h.doors[id] = nil
	for _, d := range all {
		if closed[d] = h.refusal(d); closed[d] == nil {
			h.doors[id] = append(h.doors[id], d)
		}
	}
	if len(h.doors[id]) == 0 {
		delete(h.doors, id)
	}
	return closed
}

func (h doors) Close(_ context.Context, id vm.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("close doors"); err != nil {
		return err
	}
	delete(h.doors, id)
	return nil
}

// Check looks, which is no effect.
func (h doors) Check(_ context.Context, _ vm.ID, d vm.Door) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refusal(d)
}

// refusal says why a door cannot be opened. h.mu is held.
func (h doors) refusal(d vm.Door) error {
	if h.taken[d.Listen] {
		return fault.New(fault.InUse, "process 7 (httpd) listens there").WithOp("listen on", d.Listen.String())
	}
	return nil
}

func (h doors) Free(netip.Addr) (uint16, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextPort++
	return h.nextPort, nil
}

func (h doors) Found() []vm.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.doors))
}

// doorText tells which doors are open. h.mu is held.
func (h *Host) doorText() (lines []string) {
	for id, all := range h.doors {
		lines = append(lines, fmt.Sprintf("doors %s: %s", id, all))
	}
	return lines
}
