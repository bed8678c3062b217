package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/snapshot"
	"banger/internal/vm"
)

// captured is a snapshot's directory.
type captured struct {
	files   map[string]bool
	sealed  *snapshot.Manifest
	altered bool
}

// Snapshots returns the directories of snapshots on the host.
func (h *Host) Snapshots() lifecycle.Snapshots { return snapshots{h} }

type snapshots struct{ *Host }

// Make implements lifecycle.Snapshots.
func (s snapshots) Make(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.effect("make snapshot"); err != nil {
		return err
	}
	if c := s.snaps[dir]; c != nil && c.sealed != nil {
		return fault.New(fault.AlreadyExists, "there is one")
	}
	s.snaps[dir] = &captured{files: map[string]bool{}}
	return nil
}

// Seal implements lifecycle.Snapshots.
func (s snapshots) Seal(_ context.Context, dir string, m snapshot.Manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.effect("seal snapshot"); err != nil {
		return err
	}
	s.snaps[dir].sealed = &m
	return nil
}

// Open implements lifecycle.Snapshots.
func (s snapshots) Open(dir string) (snapshot.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.snaps[dir]
	if c == nil || c.sealed == nil {
		return snapshot.Manifest{}, fs.ErrNotExist
	}
	if c.altered {
		return *c.sealed, fault.New(fault.Corrupt, "its file state is not what was sealed")
	}
	return *c.sealed, nil
}

// Verify implements lifecycle.Snapshots.
func (s snapshots) Verify(_ context.Context, dir string) error {
	_, err := s.Open(dir)
	return err
}

// Learn and Ahead implement lifecycle.Snapshots. Nothing depends on either.
func (snapshots) Learn(string, int) error { return nil }
func (snapshots) Ahead(string) error      { return nil }

// List implements lifecycle.Snapshots.
func (s snapshots) List(dir string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for path, c := range s.snaps {
		if filepath.Dir(path) == dir && c.sealed != nil {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Remove implements lifecycle.Snapshots.
func (s snapshots) Remove(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.effect("remove snapshot"); err != nil {
		return err
	}
	delete(s.snaps, dir)
	return nil
}

// Sweep implements lifecycle.Snapshots.
func (s snapshots) Sweep(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, c := range s.snaps {
		if filepath.Dir(path) == dir && c.sealed == nil {
			delete(s.snaps, path)
		}
	}
	return nil
}

// Upgrade replaces the hypervisor by another version.
func (h *Host) Upgrade(version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version = version
}

// Alter writes to the state of every snapshot behind the daemon's back.
func (h *Host) Alter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.snaps {
		c.altered = true
	}
}

// LoseSnapshots removes all snapshots behind the daemon's back.
func (h *Host) LoseSnapshots() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.snaps = map[string]*captured{}
}

// snapshotText is a line for each snapshot. h.mu is held.
func (h *Host) snapshotText() (lines []string) {
	for dir, c := range h.snaps {
		line := "snapshot in " + filepath.Base(filepath.Dir(dir)) + ": " + strings.Join(slices.Sorted(maps.Keys(c.files)), " ")
		if c.sealed == nil {
			line += ", not sealed"
		}
		lines = append(lines, line)
	}
	return lines
}

// Freeze is what a snapshot freezes of this host.
func (h *Host) Freeze(_ context.Context, img image.Manifest) (snapshot.Frozen, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return snapshot.Frozen{ImageRoot: "root of " + img.ID, Agent: "fake", Hypervisor: h.version, CPU: "fake", HostKernel: "6.1"}, nil
}

// Snapshot implements lifecycle.Hypervisor.
func (h *Host) Snapshot(_ context.Context, id vm.ID, to vm.Snapshot) error {
	_, p := h.find(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("snapshot memory"); err != nil {
		return err
	}
	if p == nil || !p.paused {
		return errors.New("the guest does not stand still")
	}
	return errors.Join(h.put(to.State), h.put(to.Memory))
}

// Restore implements lifecycle.Hypervisor.
func (h hypervisor) Restore(_ context.Context, m vm.Machine, from vm.Snapshot, line func(string)) (vm.Process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("restore hypervisor"); err != nil {
		return vm.Process{}, err
	}
	c := h.snaps[filepath.Dir(from.State)]
	if c == nil || !c.files[filepath.Base(from.State)] || !c.files[filepath.Base(from.Memory)] {
		return vm.Process{}, fmt.Errorf("restore: %w", fs.ErrNotExist)
	}
	_, pid, err := h.spawn(m, line)
	if err != nil {
		return vm.Process{}, err
	}
	if g := h.guests[m.Dir]; g != nil {
		g.deaf = h.Guest == Deaf
	}
	if h.Guest == Dies {
		go h.exit(pid)
	}
	return vm.Process{PID: pid, StartTime: startTime, BootID: BootID}, nil
}

// Restored implements lifecycle.Guests.
func (h *Host) Restored(dir string, events func(lifecycle.GuestEvent)) (lifecycle.Guest, error) {
	return h.Open(dir, nil, events)
}

// Hold implements lifecycle.Guest.
func (g *guest) Hold(context.Context) error {
	g.host.mu.Lock()
	err := g.host.effect("hold guest")
	g.host.mu.Unlock()
	return errors.Join(err, g.answer())
}

// Adopt implements lifecycle.Guest. A guest that has adopted its identity says that it is ready.
func (g *guest) Adopt(_ context.Context, config agentproto.GuestConfig) error {
	g.host.mu.Lock()
	err := g.host.effect("adopt identity")
	if err == nil {
		g.config = func() agentproto.GuestConfig { return config }
		for _, p := range g.host.procs {
			if p.dir == g.dir {
				p.seen.Hostname = config.Hostname
			}
		}
	}
	g.host.mu.Unlock()
	if err = errors.Join(err, g.answer()); err != nil {
		return err
	}
	g.events(lifecycle.GuestEvent{Hello: &agentproto.Hello{Phase: agentproto.PhaseResident}})
	g.events(lifecycle.GuestEvent{Ready: &agentproto.Ready{}})
	return nil
}
