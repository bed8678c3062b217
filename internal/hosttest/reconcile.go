package hosttest

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	"banger/internal/reconcile"
	"banger/internal/vm"
)

// Found implements lifecycle.Hypervisor.
func (h hypervisor) Found(context.Context) ([]vm.ID, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []vm.ID
	for _, p := range h.procs {
		all = append(all, p.id)
	}
	return all, nil
}

// List implements lifecycle.Dirs.
func (h *Host) List() ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for id := range h.dirs {
		names = append(names, string(id))
	}
	slices.Sort(names)
	return names, nil
}

// Describe implements lifecycle.Dirs.
func (h *Host) Describe(name string) (*reconcile.Directory, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := vm.ID(name)
	files, ok := h.dirs[id]
	if !ok {
		return nil, nil //nolint:nilnil // none is an answer, not a failure
	}
	d := &reconcile.Directory{Path: "/state/vms/" + name, VM: h.known[id]}
	if !files["vm.json"] {
		d.VM, d.Err = vm.VM{}, fmt.Errorf("read %s/vm.json: %w", d.Path, fs.ErrNotExist)
	}
	return d, nil
}
