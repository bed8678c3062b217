package hosttest

import (
	"context"
	"path/filepath"

	"banger/internal/admission"
	"banger/internal/vm"
)

// Room is what a fake host has, in bytes. A new one has plenty.
type Room struct {
	Memory int64
	Space  admission.Space
	File   int64 // what each file occupies
	Copies bool  // a clone takes as much as what it was made from

	NoMapper bool // its kernel has no device-mapper
}

func plenty() Room {
	return Room{Memory: vm.TiB, Space: admission.Space{Free: 100 * vm.TiB, Size: 100 * vm.TiB}}
}

// SetRoom changes what the host has.
func (h *Host) SetRoom(change func(*Room)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(&h.room)
}

// Plenty gives the host back what it had when it was new.
func (h *Host) Plenty() { h.SetRoom(func(r *Room) { *r = plenty() }) }

// Memory implements lifecycle.Capacity.
func (h *Host) Memory() (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.room.Memory, nil
}

// Space implements lifecycle.Capacity.
func (h *Host) Space() (admission.Space, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.room.Space, nil
}

// Allocated implements lifecycle.Capacity.
func (h *Host) Allocated(path string) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if filepath.Base(path) == vm.FileRootCow && !h.has(path) {
		return 0, nil // as in an image
	}
	return h.room.File, nil
}

// Shares implements lifecycle.Capacity.
func (h *Host) Shares() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.room.Copies
}

// Pause implements lifecycle.Hypervisor.
func (h hypervisor) Pause(_ context.Context, id vm.ID) error {
	return h.stand(id, "pause hypervisor", true)
}

// Resume implements lifecycle.Hypervisor.
func (h hypervisor) Resume(_ context.Context, id vm.ID) error {
	return h.stand(id, "resume hypervisor", false)
}

func (h *Host) stand(id vm.ID, label string, still bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect(label); err != nil {
		return err
	}
	for _, p := range h.procs {
		if p.id == id {
			p.paused = still
		}
	}
	return nil
}

// standing reports whether the guest in dir is paused. h.mu is held.
func (h *Host) standing(dir string) bool {
	for _, p := range h.procs {
		if p.dir == dir {
			return p.paused
		}
	}
	return false
}

// Words lets a guest's kernel print a line on the console.
func (h *Host) Words(id vm.ID, line string) {
	_, p := h.find(id)
	p.line(line)
}

// Looks is how often a guest's CPU time was asked for.
func (h *Host) Looks(id vm.ID) int {
	_, p := h.find(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.looks
}
