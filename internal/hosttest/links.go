package hosttest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"banger/internal/vm"
)

// tap is a network device of a VM.
type tap struct {
	bridge string
	held   bool // nothing passes yet
}

func (t tap) String() string {
	if t.held {
		return t.bridge + ", held"
	}
	return t.bridge
}

// Prepare implements nic.Links.
func (h *Host) Prepare(_ context.Context, l vm.Lease) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("make bridge"); err != nil {
		return err
	}
	h.bridges[l.Bridge] = true
	if err := h.effect("make tap"); err != nil {
		return err
	}
	h.taps[l.TAP] = tap{bridge: l.Bridge, held: true}
	return nil
}

// Admit implements nic.Links.
func (h *Host) Admit(_ context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("admit tap"); err != nil {
		return err
	}
	t, ok := h.taps[name]
	if !ok {
		return fmt.Errorf("tap %s is missing", name)
	}
	t.held = false
	h.taps[name] = t
	return nil
}

// Detach implements nic.Links.
func (h *Host) Detach(_ context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("remove tap"); err != nil {
		return err
	}
	delete(h.taps, name)
	// An idle bridge goes whether or not the TAP was still there: its removal may have been cut short.
	for bridge := range h.bridges {
		if h.ports(bridge) > 0 {
			continue
		}
		if err := h.effect("remove bridge"); err != nil {
			return err
		}
		delete(h.bridges, bridge)
	}
	return nil
}

// ports counts a bridge's. h.mu is held.
func (h *Host) ports(bridge string) (n int) {
	for _, t := range h.taps {
		if t.bridge == bridge {
			n++
		}
	}
	return n
}

// TAPs implements nic.Links. Looking is no effect.
func (h *Host) TAPs(context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.taps)), nil
}

// Plant makes a TAP that no verb asked for, on the instance's bridge if there is one.
func (h *Host) Plant(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taps[name] = tap{}
	for bridge := range h.bridges {
		h.taps[name] = tap{bridge: bridge}
	}
}
