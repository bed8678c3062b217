package daemon

import (
	"context"
	"crypto/rand"
	"net/netip"
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
	inUse      func(context.Context) ([]netip.Prefix, error)
	store      interface {
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

// find takes the configured one, or the one of earlier, or a free one.
func (s *subnet) find(ctx context.Context) (netip.Prefix, error) {
	used, err := s.inUse(ctx)
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
		return p, network.CheckSubnet(p, used)
	}
	if p, err = network.PickSubnet(used); err != nil {
		return p, err
	}
	return p, s.store.SetSubnet(ctx, p)
}

// pick leases an address of it.
func (s *subnet) pick(taken []netip.Addr) (vm.Lease, error) { return s.now().Pick(taken) }
