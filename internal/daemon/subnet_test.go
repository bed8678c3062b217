package daemon

import (
	"context"
	"net/netip"
	"testing"

	"banger/internal/fault"
)

// noted is what the store has of a subnet.
type noted struct{ p, ula netip.Prefix }

func (n *noted) Subnet(context.Context) (netip.Prefix, bool, error) { return n.p, n.p.IsValid(), nil }

func (n *noted) SetSubnet(_ context.Context, p netip.Prefix) error {
	n.p = p
	return nil
}

func (n *noted) ULA(context.Context) (netip.Prefix, bool, error) { return n.ula, n.ula.IsValid(), nil }

func (n *noted) SetULA(_ context.Context, p netip.Prefix) error {
	n.ula = p
	return nil
}

func TestSubnet(t *testing.T) {
	ten := netip.MustParsePrefix("10.0.0.0/8")
	home := netip.MustParsePrefix("192.168.0.0/16")
	stored := netip.MustParsePrefix("10.50.0.0/22")
	for name, c := range map[string]struct {
		configured string
		stored     netip.Prefix
		used       []netip.Prefix
		want       string // "" is none
		code       fault.Code
	}{
		"configured":              {configured: "10.60.0.0/22", stored: stored, want: "10.60.0.0/22"},
		"configured and taken":    {configured: "10.60.0.0/22", used: []netip.Prefix{netip.MustParsePrefix("10.60.1.0/24")}, code: fault.InUse},
		"configured and nonsense": {configured: "here", code: fault.Invalid},
		"of earlier":              {stored: stored, want: "10.50.0.0/22"},
		"of earlier, taken now":   {stored: stored, used: []netip.Prefix{netip.MustParsePrefix("10.48.0.0/12")}, code: fault.InUse},
		"none free":               {used: []netip.Prefix{ten, home}, code: fault.Exhausted},
	} {
		t.Run(name, func(t *testing.T) {
			s := &subnet{configured: c.configured, store: &noted{p: c.stored}, inUse: func(context.Context) ([]netip.Prefix, error) { return c.used, nil }}
			_, err := s.Require(t.Context())
			if fault.CodeOf(err) != c.code || err != nil && fault.From(err).Hint == "" {
				t.Errorf("got %v", err)
			}
			if got := s.now().Subnet; got.IsValid() != (c.want != "") || got.IsValid() && got.String() != c.want {
				t.Errorf("it is %s, want %q", got, c.want)
			}
		})
	}
}

// TestASubnetIsLookedForUntilThereIsOne frees one while the daemon runs, and takes it again.
func TestASubnetIsLookedForUntilThereIsOne(t *testing.T) {
	used := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.0.0/16")}
	kept := &noted{}
	s := &subnet{store: kept, inUse: func(context.Context) ([]netip.Prefix, error) { return used, nil }}
	if _, err := s.Require(t.Context()); !fault.Is(err, fault.Exhausted) || s.now().Subnet.IsValid() || kept.p.IsValid() {
		t.Errorf("with none free: %v, %s", err, s.now().Subnet)
	}
	used = nil
	if _, err := s.Require(t.Context()); err != nil || !s.now().Subnet.IsValid() || kept.p != s.now().Subnet {
		t.Errorf("with all free: %v, %s, stored %s", err, s.now().Subnet, kept.p)
	}
	lease, err := s.pick(nil)
	if err != nil || !s.now().Subnet.Contains(lease.Address.Addr()) {
		t.Errorf("leased %+v, %v", lease, err)
	}
	if !kept.ula.IsValid() || !kept.ula.Contains(lease.Address6.Addr()) {
		t.Errorf("leased %+v of %s", lease, kept.ula)
	}
	again := &subnet{store: kept, inUse: s.inUse} // the next daemon
	if _, err := again.Require(t.Context()); err != nil || again.now() != s.now() {
		t.Errorf("first %+v, then %+v, %v", s.now(), again.now(), err)
	}
	used = []netip.Prefix{s.now().Subnet}
	if _, err := s.Require(t.Context()); err != nil {
		t.Errorf("VMs are in it by now: %v", err)
	}
}
