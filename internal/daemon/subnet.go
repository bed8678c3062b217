package daemon

import (
	"context"
	"net/netip"
	"sync"

	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

// subnet is where the instance's VMs have their addresses. A host that leaves no room for one when the
// daemon starts may do so later, so it is looked for until there is one, and then kept.
type subnet struct {
	configured string // CIDR; empty chooses one that is free
	inUse      func(context.Context) ([]netip.Prefix, error)
	store      interface {
		Subnet(ctx context.Context) (p netip.Prefix, chosen bool, err error)
		SetSubnet(ctx context.Context, p netip.Prefix) error
	}

	mu   sync.Mutex
	kept netip.Prefix
}

// now returns the subnet, which is not valid while there is none.
func (s *subnet) now() netip.Prefix {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

// Require returns it, or says why there is none.
func (s *subnet) Require(ctx context.Context) (netip.Prefix, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept.IsValid() {
		return s.kept, nil
	}
	p, err := s.find(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	s.kept = p
	return p, nil
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
func (s *subnet) pick(taken []netip.Addr) (vm.Lease, error) { return network.Picker(s.now())(taken) }
