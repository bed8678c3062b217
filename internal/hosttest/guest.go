package hosttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// Boot id and start time of every fake process: a Host is one boot of one machine.
const (
	BootID    = "fake-boot"
	startTime = 42
)

type guest struct {
	host   *Host
	dir    string
	config func() agentproto.GuestConfig
	events func(lifecycle.GuestEvent)
	deaf   bool
}

// Open implements lifecycle.Guests.
func (h *Host) Open(dir string, config func() agentproto.GuestConfig, events func(lifecycle.GuestEvent)) (lifecycle.Guest, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("open vsock"); err != nil {
		return nil, err
	}
	g := &guest{host: h, dir: dir, config: config, events: events}
	h.guests[dir] = g
	return g, nil
}

// Start implements lifecycle.Hypervisor. The guest boots at once, in a goroutine of its own.
func (h *Host) Start(_ context.Context, m vm.Machine, line func(string)) (vm.Process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("start hypervisor"); err != nil {
		return vm.Process{}, err
	}
	p, pid, err := h.spawn(m, line)
	if err != nil {
		return vm.Process{}, err
	}
	go h.boot(pid, p, h.Guest)
	return vm.Process{PID: pid, StartTime: startTime, BootID: BootID}, nil
}

// spawn makes a process of a machine whose devices are there. h.mu is held.
func (h *Host) spawn(m vm.Machine, line func(string)) (*process, int, error) {
	for _, d := range m.Drives {
		if !h.dirs[m.ID][d.Path] {
			return nil, 0, fmt.Errorf("drive %s is missing", d.Path)
		}
	}
	for _, n := range m.NICs {
		if h.taps[n.TAP].bridge == "" {
			return nil, 0, fmt.Errorf("tap %s is missing", n.TAP)
		}
	}
	h.nextPID++
	p := &process{id: m.ID, dir: m.Dir, gone: make(chan struct{}), described: make(chan struct{}), line: line}
	p.seen, p.old = h.booting(m), h.Guest == Old
	h.procs[h.nextPID] = p
	return p, h.nextPID, nil
}

// boot is what the guest does by itself.
func (h *Host) boot(pid int, p *process, b Behaviour) {
	h.mu.Lock()
	g := h.guests[p.dir]
	dead := h.crashed
	if g != nil {
		g.deaf = b == Deaf || b == Silent
	}
	h.mu.Unlock()
	if b == Dies {
		h.exit(pid)
		return
	}
	if g == nil || b == Silent || dead {
		return
	}
	hostname := g.config().Hostname
	h.mu.Lock()
	p.seen.Hostname = hostname
	h.mu.Unlock()
	g.events(lifecycle.GuestEvent{Hello: &agentproto.Hello{Phase: agentproto.PhaseBoot}})
	if b == FailsEarly {
		select { // so that every run has the same effects
		case <-p.described:
		case <-p.gone:
			return
		}
		g.events(lifecycle.GuestEvent{Failed: &agentproto.Failed{Stage: "disks", Msg: "no such disk"}})
		h.exit(pid)
		return
	}
	g.events(lifecycle.GuestEvent{Ready: &agentproto.Ready{}})
}

// exit ends a process, as the kernel would.
func (h *Host) exit(pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.procs[pid]; p != nil {
		delete(h.procs, pid)
		close(p.gone)
	}
}

func (h *Host) find(id vm.ID) (int, *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for pid, p := range h.procs {
		if p.id == id {
			return pid, p
		}
	}
	return 0, nil
}

// Crash ends a VM's hypervisor without a word, as SIGKILL does.
func (h *Host) Crash(id vm.ID) {
	pid, _ := h.find(id)
	h.exit(pid)
}

// Panic is a guest whose kernel panics and resets.
func (h *Host) Panic(id vm.ID) {
	pid, p := h.find(id)
	p.line("[    9.876543] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000000")
	h.exit(pid)
}

// Reboot is `reboot` typed in the guest.
func (h *Host) Reboot(id vm.ID) {
	pid, p := h.find(id)
	h.farewell(p)
	h.exit(pid)
}

// Poweroff is `poweroff` typed in the guest: the vCPUs fall silent and the hypervisor stays.
func (h *Host) Poweroff(id vm.ID) {
	_, p := h.find(id)
	h.mu.Lock()
	h.guests[p.dir].deaf = true
	h.mu.Unlock()
	h.farewell(p)
}

func (h *Host) farewell(p *process) {
	h.mu.Lock()
	g := h.guests[p.dir]
	h.mu.Unlock()
	g.events(lifecycle.GuestEvent{Farewell: &agentproto.Farewell{Intent: agentproto.IntentUnknown}})
}

// hypervisor sets the hypervisor's Attach apart from the network's.
type hypervisor struct{ *Host }

// Hypervisor returns the host's hypervisor.
func (h *Host) Hypervisor() lifecycle.Hypervisor { return hypervisor{h} }

// Attach implements lifecycle.Hypervisor.
func (h hypervisor) Attach(_ context.Context, id vm.ID, p vm.Process, line func(string)) (bool, error) {
	if !h.Alive(p) {
		return false, fmt.Errorf("no hypervisor of %s with pid %d", id, p.PID)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("attach hypervisor"); err != nil {
		return false, err
	}
	h.procs[p.PID].line = line
	return h.procs[p.PID].paused, nil
}

// Wait implements lifecycle.Hypervisor.
func (h hypervisor) Wait(ctx context.Context, p vm.Process) error {
	h.mu.Lock()
	proc := h.procs[p.PID]
	h.mu.Unlock()
	if proc == nil {
		return nil
	}
	select {
	case <-proc.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Kill implements lifecycle.Hypervisor.
func (h hypervisor) Kill(_ context.Context, p vm.Process) error {
	h.mu.Lock()
	err := h.effect("kill hypervisor")
	h.mu.Unlock()
	if err == nil {
		h.exit(p.PID)
	}
	return err
}

// Alive implements lifecycle.Hypervisor.
func (h hypervisor) Alive(p vm.Process) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.procs[p.PID] != nil && p.StartTime == startTime && p.BootID == BootID
}

// CPUTime implements lifecycle.Hypervisor. A guest that answers is busy, a halted one is not.
func (h hypervisor) CPUTime(p vm.Process) (time.Duration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	proc := h.procs[p.PID]
	if proc == nil {
		return 0, errors.New("no such process")
	}
	proc.looks++
	if g := h.guests[proc.dir]; g != nil && !g.deaf && !proc.paused {
		proc.cpu += time.Millisecond
	}
	return proc.cpu, nil
}

// Release implements lifecycle.Hypervisor.
func (h hypervisor) Release(_ context.Context, r vm.Record) error {
	h.mu.Lock()
	err := h.effect("release cgroup")
	h.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		pid, p := h.find(r.VM)
		if p == nil {
			return nil
		}
		h.exit(pid)
	}
}

func (g *guest) answer() error {
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	if g.deaf || g.host.standing(g.dir) {
		return fault.New(fault.Unavailable, "the guest's agent does not answer")
	}
	return nil
}

// Ping implements lifecycle.Guest.
func (g *guest) Ping(context.Context) error { return g.answer() }

// Info implements lifecycle.Guest.
func (g *guest) Info(context.Context) (agentproto.Info, error) {
	return agentproto.Info{Agent: "fake"}, g.answer()
}

// Shutdown implements lifecycle.Guest.
func (g *guest) Shutdown(context.Context, agentproto.Intent) error {
	g.host.mu.Lock()
	err := g.host.effect("ask for shutdown")
	g.host.mu.Unlock()
	if err = errors.Join(err, g.answer()); err != nil {
		return err
	}
	for pid, p := range g.host.running() {
		if p.dir == g.dir {
			g.host.exit(pid)
		}
	}
	return nil
}

func (h *Host) running() map[int]*process {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[int]*process{}
	for pid, p := range h.procs {
		out[pid] = p
	}
	return out
}

// Listeners implements lifecycle.Guest: nothing listens.
func (g *guest) Listeners(context.Context) (agentproto.Listeners, error) {
	return agentproto.Listeners{}, g.answer()
}

// Dial implements lifecycle.Guest: nothing listens.
func (g *guest) Dial(_ context.Context, _ string, port int) (net.Conn, error) {
	return nil, errors.Join(g.answer(), fmt.Errorf("port %d: connection refused", port))
}

// SSH implements lifecycle.Guest: it serves none.
func (g *guest) SSH(context.Context) (net.Conn, error) {
	return nil, errors.Join(g.answer(), errors.New("this agent serves no SSH"))
}

// Close implements lifecycle.Guest.
func (g *guest) Close() error {
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	if g.host.guests[g.dir] == g {
		delete(g.host.guests, g.dir)
	}
	return nil
}
