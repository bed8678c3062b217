package daemon

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"banger/internal/admission"
	"banger/internal/config"
	"banger/internal/host/block"
	"banger/internal/host/proc"
)

// capacity is what this host has.
type capacity struct {
	dir    string // the state directory
	shares bool
}

func (capacity) Memory() (int64, error) { return proc.Memory() }

func (c capacity) Space() (admission.Space, error) {
	free, size, err := block.Space(c.dir)
	return admission.Space{Free: free, Size: size}, err
}

func (capacity) Allocated(path string) (int64, error) {
	n, err := block.Allocated(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return n, err
}

func (c capacity) Shares() bool { return c.shares }

// rules are what the configuration says of admission.
func rules(c config.Served) admission.Rules {
	r := admission.Rules{
		Overcommit: float64(c.Admission.MemoryOvercommit), LowWater: int64(c.Admission.LowWater),
		Quota: quota(c.Quota), Users: map[int]admission.Quota{},
	}
	for uid, q := range c.UserQuota {
		r.Users[uid] = quota(q)
	}
	return r
}

func quota(q config.Quota) admission.Quota {
	return admission.Quota{VMs: q.VMs, VCPU: q.VCPU, Memory: int64(q.Memory), Disk: int64(q.Disk)}
}

// mindDisk has the disk looked at, often enough that nobody can fill it between two looks, until the
// returned function is called, which waits.
func (d *Daemon) mindDisk(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		failed := ""
		for {
			space, err := d.manager.MindDisk(ctx)
			if err != nil && ctx.Err() == nil && err.Error() != failed { // the same each second is said once
				failed = err.Error()
				d.log.Error("look at the disk", "error", err)
			} else if err == nil {
				failed = ""
			}
			wait := time.Second
			if err == nil {
				wait = admission.Look(space)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}()
	return func() { cancel(); <-done }
}
