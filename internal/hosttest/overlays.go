package hosttest

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"banger/internal/fault"
	"banger/internal/feature/disk"
	"banger/internal/vm"
)

// Devices returns the host's device-mapper.
func (h *Host) Devices() disk.Devices { return devices{h} }

type devices struct{ *Host }

// Check implements disk.Devices.
func (d devices) Check(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room.NoMapper {
		return fault.New(fault.Requirement, "no such device").WithOp("use device-mapper's", "snapshot").WithHint("load the modules")
	}
	return nil
}

// Make implements disk.Devices.
func (d devices) Make(o vm.Overlay) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.effect("make root overlay"); err != nil {
		return err
	}
	if d.has(o.Cow) {
		return fault.New(fault.AlreadyExists, "file exists")
	}
	return d.put(o.Cow)
}

// Up implements disk.Devices.
func (d devices) Up(_ context.Context, o vm.Overlay) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.effect("make root device"); err != nil {
		return err
	}
	if !d.has(o.Cow) {
		return fmt.Errorf("make device: %w", fs.ErrNotExist)
	}
	if d.lost[o.Cow] {
		return fault.New(fault.Corrupt, "its root overlay is lost").WithHint("make another")
	}
	d.overlays[o.Device] = o
	d.sizes[o.Cow], d.sizes[o.Node] = max(d.sizes[o.Cow], o.Size), o.Size
	return d.put(o.Node)
}

// Grow implements disk.Devices. What is large enough already is no effect.
func (d devices) Grow(_ context.Context, o vm.Overlay) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sizes[o.Cow] >= o.Size {
		return nil
	}
	if err := d.effect("grow root device"); err != nil {
		return err
	}
	d.sizes[o.Cow] = o.Size
	if _, up := d.overlays[o.Device]; up {
		d.overlays[o.Device], d.sizes[o.Node] = o, o.Size
	}
	return nil
}

// Usable implements disk.Devices. Looking is no effect.
func (d devices) Usable(device string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, up := d.overlays[device]
	switch {
	case !up:
		return fmt.Errorf("look at device: %w", fs.ErrNotExist)
	case d.lost[o.Cow]:
		return fault.New(fault.Corrupt, "its root overlay is lost").WithHint("make another")
	}
	return nil
}

// Flush implements disk.Devices.
func (d devices) Flush(vm.Overlay) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.effect("flush root device")
}

// Down implements disk.Devices.
func (d devices) Down(_ context.Context, device, node string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.effect("remove root device"); err != nil {
		return err
	}
	delete(d.overlays, device)
	delete(d.dirs[ownerOf(node)], filepath.Base(node))
	return nil
}

// Names implements disk.Devices. Looking is no effect.
func (d devices) Names() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.overlays)), nil
}

// LoseOverlay has the host's disk refuse a write to a VM's root overlay.
func (h *Host) LoseOverlay(id vm.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.overlays {
		if ownerOf(o.Cow) == id {
			h.lost[o.Cow] = true
		}
	}
}

// PlantDevice makes a root device that no verb asked for.
func (h *Host) PlantDevice(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.overlays[name] = vm.Overlay{Device: name}
}

// ownerOf is the VM in whose jail a file is.
func ownerOf(path string) vm.ID { return vm.ID(filepath.Base(filepath.Dir(filepath.Dir(path)))) }

// has reports whether a file is there. h.mu is held.
func (h *Host) has(path string) bool {
	if c := h.snaps[filepath.Dir(path)]; c != nil {
		return c.files[filepath.Base(path)]
	}
	return h.dirs[ownerOf(path)][filepath.Base(path)]
}

// Mark writes to a disk, and MarkOf reads what was written last, also to what it was made of.
func (h *Host) Mark(path, text string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marks[h.holder(path)] = text
	return nil
}

// MarkOf reads what Mark has written.
func (h *Host) MarkOf(path string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	holder := h.holder(path)
	if _, ok := h.marks[holder]; !ok {
		for _, o := range h.overlays {
			if o.Cow == holder {
				holder = o.Origin
			}
		}
	}
	return h.marks[holder], nil
}

// SizeOf is how long a disk is, in bytes.
func (h *Host) SizeOf(path string) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sizes[path], nil
}

// holder is the file in which what is written to a disk comes to be. h.mu is held.
func (h *Host) holder(path string) string {
	for _, o := range h.overlays {
		if o.Node == path {
			return o.Cow
		}
	}
	return path
}
