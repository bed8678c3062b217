package hosttest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"banger/internal/network"
	"banger/internal/vm"
)

// tap is a network device of a VM.
type tap struct {
	bridge string
	held   bool // nothing passes yet
	spare  bool // it is kept ready, and no VM's
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
	if spare := h.spareTAP(); spare != "" {
		if err := h.effect("rename spare tap"); err != nil {
			return err
		}
		delete(h.taps, spare)
	} else if err := h.effect("make tap"); err != nil {
		return err
	}
	h.taps[l.TAP] = tap{bridge: l.Bridge, held: true}
	return nil
}

// spareTAP names a TAP that is kept ready, if there is one. h.mu is held.
func (h *Host) spareTAP() string {
	for name, t := range h.taps {
		if t.spare {
			return name
		}
	}
	return ""
}

// KeepSpares has so many TAPs kept ready from the next one on that is admitted.
func (h *Host) KeepSpares(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spares = n
}

// fill makes what is missing of the TAPs that are kept ready. No verb waits for that or hears of its failure. h.mu is held.
func (h *Host) fill(bridge string) {
	tag, number, _ := vm.BridgeOf(bridge)
	if h.spares == 0 || number > 0 || h.effect("make spare taps") != nil {
		return
	}
	for n := range h.spares {
		h.taps[tag.Spare(n)] = tap{bridge: bridge, held: true, spare: true}
	}
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
	h.fill(t.bridge)
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
		if _, n, _ := vm.BridgeOf(bridge); n == 0 && h.spareTAP() != "" {
			if err := h.effect("remove spare taps"); err != nil {
				return err
			}
			maps.DeleteFunc(h.taps, func(_ string, t tap) bool { return t.spare })
		}
		if err := h.effect("remove bridge"); err != nil {
			return err
		}
		delete(h.bridges, bridge)
	}
	return nil
}

// ports counts a bridge's, but for those that are kept ready. h.mu is held.
func (h *Host) ports(bridge string) (n int) {
	for _, t := range h.taps {
		if t.bridge == bridge && !t.spare {
			n++
		}
	}
	return n
}

// TAPs implements nic.Links. Looking is no effect.
func (h *Host) TAPs(context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(h.taps)), func(name string) bool { return h.ready(h.taps[name]) }), nil
}

// ready reports whether a TAP is kept ready and to be: capacity, not a leak. h.mu is held.
func (h *Host) ready(t tap) bool { return t.spare && h.ports(t.bridge) > 0 }

// Guard implements nic.Gate.
func (h *Host) Guard(_ context.Context, g network.Guest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("put guest into firewall"); err != nil {
		return err
	}
	h.guarded[g.TAP] = g
	return nil
}

// rules prints a policy.
func rules(p network.Policy) string {
	words := []string{"egress " + string(p.Egress)}
	if a := p.Allow.String(); a != "" {
		words = append(words, "allow "+a)
	}
	for word, on := range map[string]bool{"isolated": p.Isolated, "nat": p.NAT, "nat6": p.NAT6} {
		if on {
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// Unguard implements nic.Gate.
func (h *Host) Unguard(_ context.Context, tap string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("drop guest from firewall"); err != nil {
		return err
	}
	delete(h.guarded, tap)
	return nil
}

// Guarded implements nic.Gate. Looking is no effect.
func (h *Host) Guarded(context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.guarded)), nil
}

// CheckFirewall implements nic.Gate.
func (*Host) CheckFirewall() error { return nil }

// Plant makes a TAP that no verb asked for, on the instance's bridge if there is one.
func (h *Host) Plant(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taps[name] = tap{}
	for bridge := range h.bridges {
		h.taps[name] = tap{bridge: bridge}
	}
}
