package lifecycle

import (
	"context"
	"errors"
	"sort"
	"strings"
	"time"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/vm"
)

// Bounds of what a failed boot's error shows.
const tailLines = 12

// boot starts the hypervisor on what has been prepared and waits until the guest is ready.
func (m *Manager) boot(ctx context.Context, job *op.Job, v vm.VM) error {
	b, err := m.blueprint(v)
	if err != nil {
		return err
	}
	if v, _, err = m.bootGuest(ctx, job, v, b); err != nil {
		return err
	}
	return m.runs(ctx, v, ending(job))
}

// runs commits that the guest is ready, and with it the end of the operation where there is no more to it.
func (m *Manager) runs(ctx context.Context, v vm.VM, o *op.Operation) error {
	v.State, v.Reason, v.Started = vm.Running, "", time.Now()
	if err := m.commit(ctx, vm.Change{VM: v, Op: o}); err != nil {
		return err
	}
	if l := m.liveOf(v.ID); l != nil {
		l.lets()
	}
	return nil
}

// bootGuest starts the hypervisor and returns once the guest is ready and its process committed.
func (m *Manager) bootGuest(ctx context.Context, job *op.Job, v vm.VM, b feature.Blueprint) (vm.VM, *live, error) {
	l := newLive()
	v, err := m.rise(ctx, job, v, l,
		step{"hypervisor", func(ctx context.Context, _ feature.Report) error { return m.launch(ctx, job, l, b) }},
		step{"guest", func(ctx context.Context, _ feature.Report) error { return m.awaitReady(ctx, l, b) }})
	return v, l, err
}

// rise starts a hypervisor by one step and brings its guest to readiness by another, while its process is being
// committed.
func (m *Manager) rise(ctx context.Context, job *op.Job, v vm.VM, l *live, start, ready step) (vm.VM, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.BootTimeout, errBootTimeout)
	defer cancel()
	if err := run(ctx, job, group{start}); err != nil {
		return v, err
	}
	m.adopt(v.ID, l)
	v.Process = new(l.process())
	v.Boots()
	note := step{"commit", func(ctx context.Context, _ feature.Report) error { return m.commit(ctx, vm.Change{VM: v}) }}
	return v, run(ctx, job, group{ready, note})
}

var errBootTimeout = errors.New("the boot took too long")

// launch opens the guest's vsock end, then starts the hypervisor: an agent that dials finds someone.
func (m *Manager) launch(ctx context.Context, job *op.Job, l *live, b feature.Blueprint) error {
	guest, err := m.guests.Open(b.Machine.Dir,
		func() agentproto.GuestConfig { return b.Guest },
		func(e GuestEvent) { m.guestEvent(l, job, e) })
	if err != nil {
		return err
	}
	proc, err := m.hyper.Start(ctx, b.Machine, func(line string) { m.consoleLine(l, line) })
	if err != nil {
		return errors.Join(err, guest.Close())
	}
	l.begin(guest, proc)
	return nil
}

// awaitReady waits for the agent's word, and tells what went wrong when it does not come.
func (m *Manager) awaitReady(ctx context.Context, l *live, b feature.Blueprint) error {
	select {
	case <-l.ready:
		return nil
	case <-l.gone:
		select {
		case <-l.ready: // it was ready and then ended; the watcher deals with that
			return nil
		default:
		}
		if f := l.failure(); f != nil {
			return fault.New(fault.GuestFailed, "the guest's boot failed at %s: %s", f.Stage, f.Msg)
		}
		return fault.New(fault.GuestFailed, "the guest ended before it was ready").
			WithHint("its kernel or init gave up; see the console's last lines")
	case <-ctx.Done():
		if !errors.Is(context.Cause(ctx), errBootTimeout) {
			return context.Cause(ctx)
		}
		if f := l.failure(); f != nil {
			return fault.New(fault.GuestFailed, "the guest's boot failed at %s: %s", f.Stage, f.Msg)
		}
		if !l.saidHello() {
			return fault.New(fault.Timeout, "the guest did not say hello within %s", m.BootTimeout).
				WithHint("its kernel may lack a driver or its disk may be damaged; see the console's last lines, or raise boot_timeout")
		}
		return fault.New(fault.Timeout, "the guest booted, but %s did not answer within %s", services(b), m.BootTimeout).
			WithHint("see the console's last lines, or raise boot_timeout")
	}
}

func services(b feature.Blueprint) string {
	var names []string
	for _, s := range b.Guest.Services {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return "its agent"
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// explain adds to an error what the VM's raw logs can tell.
func (m *Manager) explain(v vm.VM, err error) error {
	f := fault.From(err)
	if f.Subject == string(v.ID) {
		f = f.WithOp(f.Op, v.Name) // what failed knows only ids
		err = f
	}
	if f.Code != fault.GuestFailed && f.Code != fault.Timeout {
		return err
	}
	if f.Detail == "" {
		text := m.dirs.Tail(m.layout.ConsoleLog(v.ID), tailLines)
		if text == "" { // the guest died without a word
			text = m.dirs.Tail(m.layout.FirecrackerLog(v.ID), tailLines)
		}
		f = f.WithDetail(text)
	}
	return f.WithLogs(m.layout.ConsoleLog(v.ID), m.layout.FirecrackerLog(v.ID))
}
