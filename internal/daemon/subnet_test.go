package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/network"
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

// links are a host's.
type hostLinks struct {
	used []string
	busy bool
}

func (h *hostLinks) InUse(context.Context) (out []network.Claim, err error) {
	for _, u := range h.used {
		out = append(out, network.Claim{Prefix: netip.MustParsePrefix(u), Device: "tun0"})
	}
	return out, nil
}

func (h *hostLinks) Busy(context.Context) (bool, error) { return h.busy, nil }

func TestSubnet(t *testing.T) {
	const overlaps = "it overlaps 10.48.0.0/12, which this host reaches by tun0"
	stored := netip.MustParsePrefix("10.50.0.0/22")
	for name, c := range map[string]struct {
		configured string
		stored     netip.Prefix
		used       []string
		busy       bool
		want       string // "" is none
		code       fault.Code
		says, hint string
	}{
		"configured":              {configured: "10.60.0.0/22", stored: stored, want: "10.60.0.0/22"},
		"configured and taken":    {configured: "10.60.0.0/22", used: []string{"10.48.0.0/12"}, code: fault.InUse, says: overlaps, hint: "such as 10.223.0.0/22, and restart"},
		"configured and nonsense": {configured: "here", code: fault.Invalid, says: "not a subnet", hint: "such as"},
		"of earlier":              {stored: stored, want: "10.50.0.0/22"},
		"of earlier, taken now":   {stored: stored, used: []string{"10.48.0.0/12"}, want: "10.223.0.0/22"},
		"taken now, VMs run":      {stored: stored, used: []string{"10.48.0.0/12"}, busy: true, code: fault.InUse, says: overlaps, hint: "stop all VMs and restart the daemon"},
		"taken now, none free":    {stored: stored, used: []string{"10.0.0.0/8", "192.168.0.0/16"}, code: fault.Exhausted, hint: "set subnet"},
		"none free":               {used: []string{"10.0.0.0/8", "192.168.0.0/16"}, code: fault.Exhausted, hint: "set subnet"},
	} {
		t.Run(name, func(t *testing.T) {
			kept := &noted{p: c.stored}
			s := &subnet{configured: c.configured, log: slog.New(slog.DiscardHandler), store: kept, links: &hostLinks{c.used, c.busy}}
			_, err := s.Require(t.Context())
			if fault.CodeOf(err) != c.code || err != nil && (!strings.Contains(err.Error(), c.says) || !strings.Contains(fault.From(err).Hint, c.hint)) {
				t.Errorf("got %v (%s)", err, fault.From(err).Hint)
			}
			if got := s.now().Subnet; got.IsValid() != (c.want != "") || got.IsValid() && got.String() != c.want {
				t.Errorf("it is %s, want %q", got, c.want)
			}
			if c.configured == "" && c.want != "" && kept.p != s.now().Subnet {
				t.Errorf("%s is stored", kept.p)
			}
			if (c.configured != "" || c.want == "") && kept.p != c.stored {
				t.Errorf("the store has %s now", kept.p)
			}
		})
	}
}

// TestASubnetIsLookedForUntilThereIsOne frees one while the daemon runs, and takes it again.
func TestASubnetIsLookedForUntilThereIsOne(t *testing.T) {
	host := &hostLinks{used: []string{"10.0.0.0/8", "192.168.0.0/16"}}
	kept := &noted{}
	s := &subnet{store: kept, links: host}
	if _, err := s.Require(t.Context()); !fault.Is(err, fault.Exhausted) || s.now().Subnet.IsValid() || kept.p.IsValid() {
		t.Errorf("with none free: %v, %s", err, s.now().Subnet)
	}
	if _, err := s.Pick(nil, nil); !fault.Is(err, fault.Requirement) || fault.From(err).Hint == "" {
		t.Errorf("leased of none: %v", err)
	}
	host.used = nil
	if _, err := s.Require(t.Context()); err != nil || !s.now().Subnet.IsValid() || kept.p != s.now().Subnet {
		t.Errorf("with all free: %v, %s, stored %s", err, s.now().Subnet, kept.p)
	}
	lease, err := s.Pick(nil, nil)
	if err != nil || !s.now().Subnet.Contains(lease.Address.Addr()) || !kept.ula.Contains(lease.Address6.Addr()) {
		t.Errorf("leased %+v of %s, %v", lease, kept.ula, err)
	}
	again := &subnet{store: kept, links: host} // the next daemon
	if _, err := again.Require(t.Context()); err != nil || again.now() != s.now() {
		t.Errorf("first %+v, then %+v, %v", s.now(), again.now(), err)
	}
	host.used = []string{s.now().Subnet.String()}
	if _, err := s.Require(t.Context()); err != nil {
		t.Errorf("VMs are in it by now: %v", err)
	}
}
