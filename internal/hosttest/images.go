package hosttest

import (
	"context"
	"io"
	"path/filepath"
	"slices"

	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
)

// Images returns the host's images; these are there from the beginning. A pulled or imported one is
// the first of them under another name.
func (h *Host) Images(have ...image.Manifest) lifecycle.Images {
	return &images{host: h, list: have}
}

type images struct {
	host *Host
	list []image.Manifest // whole ones; guarded by host.mu
}

// List implements lifecycle.Images.
func (i *images) List() ([]image.Manifest, error) {
	i.host.mu.Lock()
	defer i.host.mu.Unlock()
	return slices.Clone(i.list), nil
}

// Pull implements lifecycle.Images.
func (i *images) Pull(_ context.Context, name string, report lifecycle.StageReport) (image.Manifest, error) {
	return i.build(name, report)
}

// Import implements lifecycle.Images.
func (i *images) Import(_ context.Context, r lifecycle.ImportRequest, report lifecycle.StageReport) (image.Manifest, error) {
	if _, err := io.Copy(io.Discard, r.Tar); err != nil {
		return image.Manifest{}, err
	}
	return i.build(r.Name, report)
}

func (i *images) build(name string, report lifecycle.StageReport) (image.Manifest, error) {
	report("build", name)
	i.host.mu.Lock()
	defer i.host.mu.Unlock()
	if err := i.host.effect("build image"); err != nil {
		return image.Manifest{}, err
	}
	if err := i.host.effect("place image"); err != nil {
		return image.Manifest{}, err
	}
	m := i.list[0]
	m.Name, m.ID = name, "id of "+name
	i.remove(m.ID)
	i.list = append(i.list, m)
	return m, nil
}

// Delete implements lifecycle.Images.
func (i *images) Delete(id string) error {
	i.host.mu.Lock()
	defer i.host.mu.Unlock()
	if err := i.host.effect("remove image"); err != nil {
		return err
	}
	i.remove(id)
	return nil
}

func (i *images) remove(id string) {
	i.list = slices.DeleteFunc(i.list, func(m image.Manifest) bool { return m.ID == id })
}

// HealSeed implements lifecycle.Images.
func (i *images) HealSeed(_ context.Context, id string) (bool, error) {
	i.host.mu.Lock()
	defer i.host.mu.Unlock()
	if !i.host.noSeed[id] {
		return false, nil
	}
	if err := i.host.effect("heal work seed"); err != nil {
		return false, err
	}
	delete(i.host.noSeed, id)
	return true, nil
}

// LoseSeed removes an image's work seed behind the daemon's back.
func (h *Host) LoseSeed(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noSeed[id] = true
}

// CheckSeed implements disk.Seeds. Looking is no effect.
func (h *Host) CheckSeed(id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.noSeed[id] {
		return fault.New(fault.Corrupt, "its work seed is missing")
	}
	return nil
}

// MakeSeed implements disk.Seeds.
func (h *Host) MakeSeed(_ context.Context, _, path string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("generate " + filepath.Base(path)); err != nil {
		return err
	}
	return h.put(path)
}
