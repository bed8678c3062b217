package lifecycle

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Meter reads what running VMs use of this host.
type Meter interface {
	// Use is what a process has used; with shared also its part of the memory that others have too, which costs
	// a walk through all of it.
	Use(p vm.Process, shared bool) (vm.Usage, error)
	// Traffic is what has gone through each of the host's network devices, by name.
	Traffic() (map[string]vm.Traffic, error)
}

// StatsRequest chooses whose figures are wanted. Both empty is all that the caller may see.
type StatsRequest struct {
	VMs    []string    // names, ids or prefixes of ids
	Labels vm.Selector // that they must have
	Shared bool        // with PSS
}

// Bounds of asking guests what they use. A host has hundreds of them, and each that is asked must wake up.
const (
	guestFresh  = 5 * time.Second // how long an answer serves, and the lack of one
	guestBudget = time.Second     // for one guest
	guestsAside = 32              // guests that are asked side by side
)

// lastWord is what a guest said of itself when it was asked last.
type lastWord struct {
	mu    sync.Mutex // held while it is asked: who comes meanwhile has the answer too
	asked time.Time
	said  *vm.GuestUsage // nil when it did not answer
}

// Stats tells what VMs use, in the order in which they are named, else of their names. What cannot be read of one is
// left out, and so is what its guest does not say in time.
func (m *Manager) Stats(ctx context.Context, caller vm.Caller, r StatsRequest) ([]vm.Stats, error) {
	vms, err := m.chosen(ctx, caller, r)
	if err != nil {
		return nil, err
	}
	traffic, err := m.Meter.Traffic()
	if err != nil {
		return nil, fault.System(err, "read the traffic of network devices", "")
	}
	out := make([]vm.Stats, len(vms))
	var eg errgroup.Group
	eg.SetLimit(guestsAside)
	for i, v := range vms {
		out[i] = m.look(v, r.Shared)
		if t, ok := traffic[v.Lease.TAP]; ok && out[i].Host != nil {
			out[i].Network = new(t.Far()) // what the guest sends, its TAP receives
		}
		if out[i].Host == nil || v.State != vm.Running {
			continue
		}
		if l := m.liveOf(v.ID); l != nil {
			eg.Go(func() error { out[i].Guest = l.stats(ctx); return nil })
		}
	}
	_ = eg.Wait() // none returns an error
	return out, nil
}

func (m *Manager) chosen(ctx context.Context, caller vm.Caller, r StatsRequest) ([]vm.VM, error) {
	seen, err := m.List(ctx, caller)
	if err != nil {
		return nil, err
	}
	named := seen
	if len(r.VMs) > 0 {
		named = nil
		for _, selector := range r.VMs {
			v, err := vm.Select(seen, selector)
			if err != nil {
				return nil, err
			}
			named = append(named, v)
		}
	}
	var out []vm.VM
	had := map[vm.ID]bool{}
	for _, v := range named {
		if !had[v.ID] && r.Labels.Matches(v.Labels) {
			out = append(out, v)
		}
		had[v.ID] = true
	}
	return out, nil
}

// look reads what the host knows of a VM.
func (m *Manager) look(v vm.VM, shared bool) vm.Stats {
	s := vm.Stats{ID: v.ID, Name: v.Name, State: v.State, At: time.Now(), VCPU: v.Spec.VCPU, Memory: v.Spec.Memory}
	jail := m.layout.Jail(v.ID)
	s.Root = m.diskUsage(filepath.Join(jail, v.RootFile()), v.Spec.RootDisk)
	s.Work = m.diskUsage(filepath.Join(jail, vm.FileWorkDisk), v.Spec.WorkDisk)
	if v.Process == nil {
		return s
	}
	if u, err := m.Meter.Use(*v.Process, shared); err == nil { // else it has just ended
		s.Host = &u
	}
	return s
}

func (m *Manager) diskUsage(path string, size int64) vm.DiskUsage {
	n, err := m.Capacity.Allocated(path)
	if err != nil {
		m.log.Debug("measure", "path", path, "error", err)
	}
	return vm.DiskUsage{Allocated: n, Size: size}
}

// stats asks the guest, unless it was asked a moment ago, or cannot answer because it boots or stands still.
func (l *live) stats(ctx context.Context) *vm.GuestUsage {
	select {
	case <-l.ready:
	default:
		return nil
	}
	w := &l.usage
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.asked) < guestFresh || l.isPaused() {
		return w.said
	}
	asking, cancel := context.WithTimeout(ctx, guestBudget)
	defer cancel()
	said, err := l.agent().Stats(asking)
	if ctx.Err() != nil { // nobody listens any more: that says nothing of the guest
		return nil
	}
	w.asked, w.said = time.Now(), nil
	if err == nil {
		w.said = &vm.GuestUsage{CPU: said.CPU, Total: said.MemTotal, Available: said.MemAvail, At: w.asked}
	}
	return w.said
}
