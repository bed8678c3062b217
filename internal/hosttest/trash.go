package hosttest

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"banger/internal/vm"
)

// Discard implements lifecycle.Dirs.
func (h *Host) Discard(id vm.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("move to trash"); err != nil {
		return err
	}
	if files, ok := h.dirs[id]; ok {
		delete(h.dirs, id)
		h.trash[id] = files
	}
	return nil
}

// Exchange implements lifecycle.Dirs.
func (h *Host) Exchange(a, b vm.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("exchange jails"); err != nil {
		return err
	}
	one, other := h.dirs[a], h.dirs[b]
	if one == nil || other == nil {
		return fmt.Errorf("exchange: %w", fs.ErrNotExist)
	}
	h.dirs[a], h.dirs[b] = other, one
	return nil
}

// Restore implements lifecycle.Dirs.
func (h *Host) Restore(id vm.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("move from trash"); err != nil {
		return err
	}
	if files, ok := h.trash[id]; ok {
		delete(h.trash, id)
		h.dirs[id] = files
	}
	if h.dirs[id] == nil {
		return fs.ErrNotExist
	}
	return nil
}

// Trashed implements lifecycle.Dirs.
func (h *Host) Trashed() ([]vm.VM, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []vm.VM
	for _, id := range slices.Sorted(maps.Keys(h.trash)) {
		all = append(all, h.known[id])
	}
	return all, nil
}

// Destroy implements lifecycle.Dirs.
func (h *Host) Destroy(id vm.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("remove from trash"); err != nil {
		return err
	}
	if h.trash[id] != nil {
		h.room.Space.Free += vm.GiB // as if its disks had that much on them
	}
	delete(h.trash, id)
	return nil
}
