// Package forwarding has the kernel forward packets once a VM needs it, and puts back what was set before when no VM is to
// need it again. What it does is of the network namespace of the calling thread.
package forwarding

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/sysctl"
)

// Memory keeps what settings were before they were changed, by name, over the daemon's end.
type Memory interface {
	Sysctls(ctx context.Context) (map[string]string, error)
	SetSysctls(ctx context.Context, were map[string]string) error
}

// Forwarding is the kernel's. Its methods may be called side by side.
type Forwarding struct {
	memory Memory

	mu sync.Mutex
}

// New returns it.
func New(memory Memory) *Forwarding { return &Forwarding{memory: memory} }

// The settings by which the kernel forwards at all.
const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
	devices6 = "net/ipv6/conf/"
)

// On reports whether the kernel forwards packets of an address's family.
func On(a netip.Addr) bool {
	name := forward4
	if a.Is6() {
		name = forward6
	}
	value, err := sysctl.Get(name)
	return err == nil && value != "0"
}

// Need has the kernel forward what a VM sends: of IPv4, of IPv6. What is so already is left alone.
func (f *Forwarding) Need(ctx context.Context, v4, v6 bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var changes []change
	var err error
	if v4 {
		changes, err = off(forward4)
	}
	if v6 && err == nil {
		var more []change
		more, err = need6()
		changes = append(changes, more...)
	}
	if err != nil {
		return explain("read", err)
	}
	if len(changes) == 0 {
		return nil
	}
	were, err := f.memory.Sysctls(ctx)
	if err != nil {
		return err
	}
	next := maps.Clone(were)
	if next == nil {
		next = map[string]string{}
	}
	for _, c := range changes {
		if _, known := next[c.name]; !known { // the first value is whoever's that was there before us
			next[c.name] = c.was
		}
	}
	// Remembered first: whoever dies in between has changed nothing that is not known.
	if err := f.memory.SetSysctls(ctx, next); err != nil {
		return err
	}
	for _, c := range changes {
		if err := sysctl.Set(c.name, c.is); err != nil {
			return explain("write", err)
		}
	}
	return nil
}

// change is what a setting was and is to be.
type change struct{ name, was, is string }

// off is the change of a setting that is 0 and is to be 1; none where it is otherwise.
func off(name string) ([]change, error) {
	was, err := sysctl.Get(name)
	if err != nil || was != "0" {
		return nil, err
	}
	return []change{{name, was, "1"}}, nil
}

// need6 is what IPv6 takes. A host that forwards does not listen to router advertisements, by which it has addresses and
// routes of its own, unless each device is told to. And turning it on for all turns it on for each, so where it was on for
// some alone is remembered too.
func need6() ([]change, error) {
	all, err := off(forward6)
	if len(all) == 0 || err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fault.New(fault.Requirement, "the kernel has no IPv6").WithHint("leave nat6 off, or boot the host with IPv6")
		}
		return nil, err
	}
	devices, err := os.ReadDir("/proc/sys/" + devices6)
	if err != nil {
		return nil, err
	}
	var changes []change
	for _, d := range devices {
		if d.Name() == "all" {
			continue
		}
		for setting, is := range map[string]string{"accept_ra": "2", "forwarding": "1"} {
			name := devices6 + d.Name() + "/" + setting
			was, err := sysctl.Get(name)
			if errors.Is(err, fs.ErrNotExist) { // it has gone
				continue
			}
			if err != nil {
				return nil, err
			}
			if was == "1" {
				changes = append(changes, change{name, was, is})
			}
		}
	}
	return append(changes, all...), nil
}

// Restore puts back what was set before, and names it. What is so already, or has gone, is left, and so is all of it where
// others have come to need that packets are forwarded.
func (f *Forwarding) Restore(ctx context.Context, others bool) (restored []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	back, err := f.changed(ctx, others)
	if err != nil {
		return nil, err
	}
	for _, c := range back {
		if err := sysctl.Set(c.name, c.is); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return restored, explain("write", err)
		}
		restored = append(restored, dotted(c.name))
	}
	return restored, f.memory.SetSysctls(ctx, nil)
}

// Changed names what Restore would put back.
func (f *Forwarding) Changed(ctx context.Context, others bool) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	back, err := f.changed(ctx, others)
	var names []string
	for _, c := range back {
		names = append(names, dotted(c.name))
	}
	return names, err
}

// changed is the way back. f.mu is held.
func (f *Forwarding) changed(ctx context.Context, others bool) ([]change, error) {
	were, err := f.memory.Sysctls(ctx)
	if err != nil || others {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(were))
	// First, since it sets that of each device.
	if at := slices.Index(names, forward6); at >= 0 {
		names = append([]string{forward6}, slices.Delete(names, at, at+1)...)
	}
	var back []change
	for _, name := range names {
		now, err := sysctl.Get(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, explain("read", err)
		case now != were[name] || strings.HasPrefix(name, devices6): // a device's goes with that of all
			back = append(back, change{name, now, were[name]})
		}
	}
	return back, nil
}

func dotted(name string) string { return strings.ReplaceAll(name, "/", ".") }

func explain(op string, err error) error {
	e := fault.From(err).InOp(op+" kernel setting", "")
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		e.Code = fault.Requirement
		return e.WithHint("make /proc/sys writable: in a container, run it privileged; or set net.ipv4.ip_forward=1 yourself")
	}
	return e
}
