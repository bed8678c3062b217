package nic_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/agentproto"
	"banger/internal/feature"
	"banger/internal/feature/nic"
	"banger/internal/hosttest"
	"banger/internal/network"
	"banger/internal/vm"
)

// host is one that may lack TUN or room for a subnet.
type host struct{ tun, firewall, subnet error }

func (host) Prepare(context.Context, vm.Lease) error    { return nil }
func (host) Admit(context.Context, string) error        { return nil }
func (host) Detach(context.Context, string) error       { return nil }
func (host) TAPs(context.Context) ([]string, error)     { return []string{"btab12-01234567"}, nil }
func (h host) CheckTUN() error                          { return h.tun }
func (host) Guard(context.Context, network.Guest) error { return nil }
func (host) Unguard(context.Context, string) error      { return nil }
func (host) Guarded(context.Context) ([]string, error)  { return []string{"btab12-89abcdef"}, nil }
func (h host) CheckFirewall() error                     { return h.firewall }

func (h host) Require(context.Context) (netip.Prefix, error) {
	return netip.MustParsePrefix("10.1.0.0/22"), h.subnet
}

// TestWhatIsLackingIsSaidBeforeAStartAndByDoctor holds the two to the same answers.
func TestWhatIsLackingIsSaidBeforeAStartAndByDoctor(t *testing.T) {
	tun, firewall, subnet := errors.New("no TUN"), errors.New("no nf_tables"), errors.New("no room")
	const made, rules = "network devices can be made", "the kernel has what the rules need"
	for _, c := range []struct {
		host
		preflight error
		details   []string
	}{
		{host{}, nil, []string{made, rules, "10.1.0.0/22"}},
		{host{tun: tun}, tun, []string{"no TUN", rules, "10.1.0.0/22"}},
		{host{firewall: firewall}, firewall, []string{made, "no nf_tables", "10.1.0.0/22"}},
		{host{subnet: subnet}, subnet, []string{made, rules, "no room"}},
	} {
		f := &nic.Feature{Links: c.host, Gate: c.host, Subnet: c.host}
		if err := f.Preflight(t.Context(), vm.VM{}); !errors.Is(err, c.preflight) {
			t.Errorf("%+v: %v", c.host, err)
		}
		for i, check := range f.Checks() {
			detail, err := check.Probe(t.Context())
			if err != nil {
				detail = err.Error()
			}
			if detail != c.details[i] || check.Name == "" || check.Fix == "" {
				t.Errorf("%+v: %s: %q", c.host, check.Name, detail)
			}
		}
	}
}

// TestAGuestThatIsHeld is brought up in two steps, which together are what any other takes at once.
func TestAGuestThatIsHeld(t *testing.T) {
	v := vm.VM{Lease: vm.Lease{TAP: "btab12-01234567", Bridge: "banger-ab12"}}
	report := func(string) {}
	h := hosttest.New()
	var f feature.Holder = &nic.Feature{Links: h, Gate: h}
	if err := f.UpHeld(t.Context(), v, report); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff("bridge banger-ab12\nrules for btab12-01234567: egress \ntap btab12-01234567 on banger-ab12, held", h.Text()); d != "" {
		t.Error(d)
	}
	if err := f.Admit(t.Context(), v, report); err != nil {
		t.Error(err)
	}
	other := hosttest.New()
	if err := (&nic.Feature{Links: other, Gate: other}).Up(t.Context(), v, report); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(other.Text(), h.Text()); d != "" {
		t.Error(d)
	}
}

// TestTheGuestIsToldItsNetwork has it asked for names where the gateway is.
func TestTheGuestIsToldItsNetwork(t *testing.T) {
	v := vm.VM{Lease: vm.Lease{
		Address: netip.MustParsePrefix("10.1.0.5/22"), Gateway: netip.MustParseAddr("10.1.0.1"),
		MAC: "02:ba:0a:01:00:05", TAP: "btab12-01234567", Bridge: "banger-ab12",
	}}
	var b feature.Blueprint
	(&nic.Feature{}).Contribute(v, &b)
	want := agentproto.Network{MAC: "02:ba:0a:01:00:05", Address: "10.1.0.5/22", Gateway: "10.1.0.1", DNS: []string{"10.1.0.1"}, Search: []string{"vm"}}
	if d := cmp.Diff(&want, b.Guest.Network); d != "" {
		t.Errorf("without IPv6: %s", d)
	}
	v.Lease.Address6, v.Lease.Gateway6 = netip.MustParsePrefix("fd01::a01:5/64"), netip.MustParseAddr("fd01::a01:1")
	want.Address6, want.Gateway6 = "fd01::a01:5/64", "fd01::a01:1"
	(&nic.Feature{}).Contribute(v, &b)
	if d := cmp.Diff(&want, b.Guest.Network); d != "" {
		t.Errorf("with IPv6: %s", d)
	}
}
