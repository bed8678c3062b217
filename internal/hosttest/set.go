package hosttest

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Seen is a machine as the guest in it sees it. Sizes are bytes.
type Seen struct {
	VCPU     int
	Memory   int64 // without what is in the balloon
	Root     int64 // file systems
	Work     int64
	Hostname string
}

// Seen is what a VM's guest sees.
func (h *Host) Seen(id vm.ID) Seen {
	_, p := h.find(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.seen
}

// booting is what a guest sees as it boots: it fills its disks. h.mu is held.
func (h *Host) booting(m vm.Machine) Seen {
	s := Seen{VCPU: m.VCPU, Memory: m.Memory}
	for _, d := range m.Drives {
		*s.disk(d.ID) = h.sizes[filepath.Join(m.Dir, d.Path)]
	}
	return s
}

func (s *Seen) disk(drive string) *int64 {
	if drive == "root" {
		return &s.Root
	}
	return &s.Work
}

// Grow implements disk.Disks. What is large enough already is no effect.
func (h *Host) Grow(path string, size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sizes[path] >= size {
		return nil
	}
	if err := h.effect("grow " + filepath.Base(path)); err != nil {
		return err
	}
	h.sizes[path] = size
	return nil
}

// Redrive implements disk.Drives.
func (h *Host) Redrive(_ context.Context, id vm.ID, _ vm.Drive) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("redrive"); err != nil {
		return err
	}
	_, err := h.machine(id)
	return err
}

// Balloon implements compute.Balloons.
func (h *Host) Balloon(_ context.Context, id vm.ID, size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("set balloon"); err != nil {
		return err
	}
	p, err := h.machine(id)
	if err == nil {
		p.seen.Memory += p.balloon - size
		p.balloon = size
	}
	return err
}

// machine is a VM's process. h.mu is held.
func (h *Host) machine(id vm.ID) (*process, error) {
	for _, p := range h.procs {
		if p.id == id {
			return p, nil
		}
	}
	return nil, errors.New("no such machine")
}

// Grow implements lifecycle.Guest: the file system fills its disk.
func (g *guest) Grow(_ context.Context, device string, size int64) error {
	drive := map[string]string{"/dev/vda": "root", "/dev/vdb": "work"}[device]
	return g.change("grow file system", func(s *Seen) { *s.disk(drive) = size })
}

// Rename implements lifecycle.Guest.
func (g *guest) Rename(_ context.Context, hostname string) error {
	return g.change("rename guest", func(s *Seen) { s.Hostname = hostname })
}

// change is what a guest is asked to do to itself; the label is the host's word for the effect.
func (g *guest) change(label string, change func(*Seen)) error {
	if err := g.answer(); err != nil {
		return err
	}
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	if err := g.host.effect(label); err != nil {
		return fault.New(fault.Unavailable, "the guest answered: %w", err)
	}
	for _, p := range g.host.procs {
		if p.dir != g.dir {
			continue
		}
		if p.old {
			return fault.New(fault.Unavailable, "the guest answered: this agent knows no request %q", label)
		}
		change(&p.seen)
	}
	return nil
}

// CheckTUN implements nic.Links.
func (h *Host) CheckTUN() error { return nil }

// Require implements nic.Subnet.
func (h *Host) Require(context.Context) (netip.Prefix, error) { return subnet(), nil }

// CheckAgent implements bootset.Kernels.
func (h *Host) CheckAgent() (string, error) { return "/lib/banger/banger-agent", nil }
