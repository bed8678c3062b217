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

// errBuilding is what a Firecracker does that has not made its vCPUs yet.
var errBuilding = errors.New("it is still building the machine")

// lookInterval is how often a Firecracker is looked at that says nothing. Each look takes processor time
// that the guest then lacks.
const lookInterval = 200 * time.Millisecond

// awaitGuest returns nil when Firecracker says that the guest runs. It is not asked before it has
// made the vCPUs, the last step of building the machine: a request that waits while the machine is
// refused makes it panic, and the reason is lost.
func (m *minder) awaitGuest(ctx context.Context, p vm.Process, machine vm.Machine) error {
	return m.await(ctx, func() error {
		if vcpus, err := proc.Threads(p, vcpuThread); err != nil || len(vcpus) == 0 {
			return errBuilding
		}
		return answers(ctx, filepath.Join(machine.Dir, vm.FileAPISocket), machine.ID)
	})
}

// await looks until look returns nil, whenever Firecracker has said something, and now and then.
func (m *minder) await(ctx context.Context, look func() error) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return nil
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
		case <-m.logs.spoke: // as it does when it listens, and when it has started the guest
		case <-tick.C:
		}
	}
}

// answers returns nil when the Firecracker behind socket is the VM's and runs its guest.
func answers(ctx context.Context, socket string, id vm.ID) error {
	state, err := stateOf(ctx, socket, id)
	if err == nil && state != running {
		err = fmt.Errorf("the guest is %q", state)
	}
	return err
}

// stateOf asks what the VM's guest does.
func stateOf(ctx context.Context, socket string, id vm.ID) (instanceState, error) {
	info, err := describe(ctx, socket)
	if err == nil && info.ID != string(id) {
		err = fmt.Errorf("the API socket belongs to %q", info.ID)
	}
	return info.State, err
}
