package firecracker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"banger/internal/fault"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

// minder looks after one running process: it reaps it and sees its last words into the logs.
type minder struct {
	logs *logs
	let  context.CancelFunc // stops minding; the process runs on
	done chan struct{}
	err  error // nil when the process has ended; read it after done
}

// mind starts to look after p.
func (d *Driver) mind(p vm.Process, l *logs) *minder {
	ctx, cancel := context.WithCancel(context.Background())
	m := &minder{logs: l, let: cancel, done: make(chan struct{})}
	d.mu.Lock()
	d.minders[p] = m
	d.mu.Unlock()
	go func() {
		defer cancel()
		m.err = proc.Wait(ctx, p)
		if err := l.close(); err != nil {
			d.log.Warn("a log of the VM is incomplete", "pid", p.PID, "err", err)
		}
		d.mu.Lock()
		delete(d.minders, p)
		d.mu.Unlock()
		close(m.done)
	}()
	return m
}

func (d *Driver) minder(p vm.Process) *minder {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.minders[p]
}

// awaitGuest returns nil when Firecracker says that the guest runs. Its socket appears milliseconds
// after its start, and it answers no earlier than it has built the machine.
func (m *minder) awaitGuest(ctx context.Context, machine vm.Machine) error {
	pause := time.Millisecond
	for {
		info, err := describe(ctx, filepath.Join(machine.Dir, vm.FileAPISocket))
		if err == nil && info.State == running && info.ID == string(machine.ID) {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("it is %s: %q", info.ID, info.State)
		}
		select {
		case <-m.done:
			return refusal(m.logs.last())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fault.New(fault.Canceled, "%w", context.Cause(ctx))
			}
			return fault.New(fault.Timeout, "Firecracker does not say that the guest runs: %w", err).
				WithHint("run `banger doctor`, and look at the logs")
		case <-time.After(pause):
			pause = min(2*pause, 20*time.Millisecond)
		}
	}
}
