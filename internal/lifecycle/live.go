package lifecycle

import (
	"context"
	"sync"
	"time"

	"banger/internal/agentproto"
	"banger/internal/op"
	"banger/internal/vm"
)

// live is a VM with a hypervisor: what this process knows of it beyond the store. All of it can be
// learned again after a restart.
type live struct {
	ready chan struct{} // closed when the agent said Ready
	gone  chan struct{} // closed when the hypervisor has ended

	mu       sync.Mutex
	guest    Guest
	proc     vm.Process
	ending   vm.Ending
	settling *vm.Ending // ending, as it was when its end was first dealt with
	failed   *agentproto.Failed
	hello    bool
	isReady  bool
	serves   bool          // its guest is this VM's and may be let in to
	clock    time.Duration // the guest's, at its latest word about its boot
	halting  bool          // someone watches the vCPUs

	paused  bool      // its vCPUs stand still because we said so
	noted   bool      // its committed state says that it is paused
	turning bool      // it is being paused or resumed
	turnAt  time.Time // not before; it has failed

	usage lastWord // has a lock of its own

	timeless bool // it did not take the time when it was last told; said already
}

func newLive() *live {
	return &live{ready: make(chan struct{}), gone: make(chan struct{})}
}

// begin notes that the hypervisor runs.
func (l *live) begin(g Guest, p vm.Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guest, l.proc = g, p
}

func (l *live) process() vm.Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.proc
}

func (l *live) agent() Guest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.guest
}

func (l *live) failure() *agentproto.Failed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// lets notes that its guest may be let in to.
func (l *live) lets() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serves = true
}

func (l *live) saidHello() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hello
}

// ask notes that it is us who want the guest down, so that nobody takes its end for a crash.
func (l *live) ask() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending.Asked = vm.Stopped
}

// judged is the evidence of how the guest ended, from the first time on that it was asked for: to take its devices
// down asks it down too.
func (l *live) judged() vm.Ending {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settling == nil {
		l.settling = new(l.ending)
	}
	return *l.settling
}

// adopt registers a VM's hypervisor and watches it from now on.
func (m *Manager) adopt(id vm.ID, l *live) {
	m.hold(id, l)
	m.watch.run(func() {
		if err := m.hyper.Wait(m.ctx, l.process()); err != nil {
			if m.ctx.Err() == nil { // else the daemon is stopping; the VM runs on
				m.log.Error("watch hypervisor", "id", id, "pid", l.process().PID, "error", err)
			}
			return
		}
		l.mu.Lock()
		l.ending.Exited = !l.ending.Halted
		asked := l.ending.Asked
		l.mu.Unlock()
		close(l.gone)
		if asked == "" {
			m.settle(id, l)
		}
	})
}

// hold keeps what is known of a VM's hypervisor, which may have ended.
func (m *Manager) hold(id vm.ID, l *live) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live[id] = l
}

// release forgets a VM's hypervisor and closes the host's end of its vsock device.
func (m *Manager) release(id vm.ID) {
	m.mu.Lock()
	l := m.live[id]
	delete(m.live, id)
	m.mu.Unlock()
	if l == nil {
		return
	}
	l.ask()
	if g := l.agent(); g != nil {
		_ = g.Close() // its socket goes with the VM's jail
	}
}

func (m *Manager) liveOf(id vm.ID) *live {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live[id]
}

// guestEvent takes in what an agent pushed. The guest is hostile: package guest has bounded and
// cleaned it, and here it can move only its own VM.
func (m *Manager) guestEvent(l *live, job *op.Job, e GuestEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case e.Hello != nil:
		l.hello = true
		if e.Hello.Phase == agentproto.PhaseResident {
			l.ending.Farewell = false // it lives: what was taken for the end of everything was a stray signal
		}
	case e.Progress != nil:
		l.note(job, e.Progress.Stage, e.Progress.Uptime)
	case e.Ready != nil:
		if !l.isReady {
			l.note(job, stageServices, e.Ready.Uptime)
			l.isReady = true
			close(l.ready)
		}
	case e.Failed != nil:
		l.failed = e.Failed
	case e.Farewell != nil:
		l.ending.Farewell = true
		m.watchHalt(l)
	}
}

// stageServices is the last part of a guest's boot: from its init's start until its services answer.
const stageServices = "services"

// note adds a stage of the guest's boot, which ended at the given time on the guest's clock. l.mu is held.
func (l *live) note(job *op.Job, stage string, at time.Duration) {
	if job == nil || l.isReady {
		return
	}
	job.Note("guest."+stage, max(0, at-l.clock))
	l.clock = max(l.clock, at)
}

// consoleLine reads the kernel's parting words off the console: the only witness of a forced reboot
// or power-off, which end no process first.
func (m *Manager) consoleLine(l *live, line string) {
	w := vm.ParseWords(line)
	if w == vm.WordsNone {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending.LastWords = w
	if w == vm.WordsHalt {
		m.watchHalt(l)
	}
}

// watchHalt looks whether a guest that is going down has halted: silent vCPUs and an agent that does
// not answer. Such a guest never ends its hypervisor by itself. l.mu is held.
func (m *Manager) watchHalt(l *live) {
	if l.halting || l.ending.Asked != "" || l.proc.PID == 0 {
		return
	}
	l.halting = true
	m.watch.run(func() {
		halted := m.halted(m.ctx, l)
		l.mu.Lock()
		l.halting = false
		l.ending.Halted = halted
		p := l.proc
		l.mu.Unlock()
		if halted {
			m.endHalted(l, p)
		}
	})
}

// endHalted kills a halted guest's hypervisor, which nothing else will end, and does not give up at once.
func (m *Manager) endHalted(l *live, p vm.Process) {
	ctx, cancel := context.WithTimeout(m.ctx, haltBudget)
	defer cancel()
	for {
		err := m.hyper.Kill(ctx, p)
		if err == nil {
			return
		}
		m.log.Error("end a halted guest's hypervisor", "pid", p.PID, "error", err)
		select {
		case <-l.gone:
			return
		case <-ctx.Done():
			return
		case <-time.After(m.HaltInterval):
		}
	}
}

// haltSilences is how many intervals in a row a guest must be silent. An init pauses, with everything
// ended and nothing to do, between its last signal and the reset: busybox for a second.
const haltSilences = 2

// haltBudget is how long a guest may take from its farewell to its end before we stop looking: a
// shutdown that hangs is the user's to kill.
const haltBudget = 5 * time.Minute

// halted returns true once the guest has halted, false when it ended otherwise or went on living.
func (m *Manager) halted(ctx context.Context, l *live) bool {
	ctx, cancel := context.WithTimeout(ctx, haltBudget)
	defer cancel()
	tick := time.NewTicker(m.HaltInterval)
	defer tick.Stop()
	p := l.process()
	last, _ := m.hyper.CPUTime(p)
	for silences := 0; ; {
		select {
		case <-ctx.Done():
			return false
		case <-l.gone:
			return false
		case <-tick.C:
		}
		now, err := m.hyper.CPUTime(p)
		if err != nil {
			return false // it has ended
		}
		silent := now == last && !l.isPaused()
		last = now
		if !silent {
			silences = 0
			continue
		}
		ping, stop := context.WithTimeout(ctx, m.HaltInterval)
		err = l.agent().Ping(ping)
		stop()
		if silences++; err == nil {
			silences = 0
		}
		if silences == haltSilences {
			return true
		}
	}
}
