package daemon

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

// subnet is where the instance's VMs have their addresses. A host that leaves no room for one when the
// daemon starts may do so later, so it is looked for until there is one, and then kept.
type subnet struct {
	tag        vm.Tag
	configured string // CIDR; empty chooses one that is free
	log        *slog.Logger
	links      interface {
		InUse(ctx context.Context) ([]network.Claim, error)
		Busy(ctx context.Context) (bool, error)
	}
	store interface {
		Subnet(ctx context.Context) (p netip.Prefix, chosen bool, err error)
		SetSubnet(ctx context.Context, p netip.Prefix) error
		ULA(ctx context.Context) (p netip.Prefix, chosen bool, err error)
		SetULA(ctx context.Context, p netip.Prefix) error
	}

	mu    sync.Mutex
	kept  network.Space
	found []func(network.Space) // called once it is
}

// whenThere calls f once there is a subnet, which may be now.
func (s *subnet) whenThere(f func(network.Space)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept.Subnet.IsValid() {
		f(s.kept)
		return
	}
	s.found = append(s.found, f)
}

// now returns it. While there is none, its subnet is not valid.
func (s *subnet) now() network.Space {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

// Require returns it, or says why there is none.
func (s *subnet) Require(ctx context.Context) (netip.Prefix, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept.Subnet.IsValid() {
		return s.kept.Subnet, nil
	}
	p, err := s.find(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	ula, err := s.find6(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	s.kept = network.Space{Tag: s.tag, Subnet: p, ULA: ula}
	for _, f := range s.found {
		f(s.kept)
	}
	return p, nil
}

// find6 takes the IPv6 subnet of earlier, or makes one.
func (s *subnet) find6(ctx context.Context) (netip.Prefix, error) {
	p, chosen, err := s.store.ULA(ctx)
	if err != nil || chosen {
		return p, err
	}
	var random [5]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand aborts the process instead
	p = network.NewULA(random)
	return p, s.store.SetULA(ctx, p)
}

// find takes the configured one, or the one of earlier, or a free one. What its user has written is never changed. What
// was chosen here before, and is in somebody's way by now, is left for another one as soon as no VM needs it.
func (s *subnet) find(ctx context.Context) (netip.Prefix, error) {
	used, err := s.links.InUse(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	if s.configured != "" {
		p, err := netip.ParsePrefix(s.configured)
		if err != nil {
			return p, fault.New(fault.Invalid, "it is not a subnet").WithOp("use subnet", s.configured).WithHint("such as 10.199.0.0/22")
		}
		return p, network.CheckSubnet(p, used)
	}
	p, chosen, err := s.store.Subnet(ctx)
	if err != nil {
		return p, err
	}
	if chosen {
		conflict := network.CheckSubnet(p, used)
		if conflict == nil {
			return p, nil
		}
		busy, err := s.links.Busy(ctx)
		if err != nil {
			return p, err
		}
		if busy {
			return p, fault.From(conflict).WithHint("stop all VMs and restart the daemon, and another is chosen; or set subnet in its configuration")
		}
		s.log.Warn("another subnet is chosen", "than", p, "why", fault.From(conflict).Msg)
	}
	fresh, err := network.PickSubnet(used)
	if err != nil {
		return p, err
	}
	return fresh, s.store.SetSubnet(ctx, fresh)
}

// Pick implements lifecycle.Network.
func (s *subnet) Pick(taken, resting []netip.Addr) (vm.Lease, error) {
	space := s.now()
	if !space.Subnet.IsValid() {
		return vm.Lease{}, fault.New(fault.Requirement, "there is no subnet for VMs").WithOp("lease address", "").WithHint("run `banger doctor`: it says why")
	}
	return space.Pick(taken, resting)
}

// Lease implements lifecycle.Network.
func (s *subnet) Lease(a netip.Addr) (vm.Lease, bool) { return s.now().Lease(a) }

// gatewaysOf are those that VMs which run have, which are others' than the subnet's where that has been moved.
func gatewaysOf(all []vm.VM) (out []netip.Addr) {
	for _, v := range all {
		if v.State != vm.Running && v.State != vm.Paused {
			continue
		}
		for _, a := range []netip.Addr{v.Lease.Gateway, v.Lease.Gateway6} {
			if a.IsValid() && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}
