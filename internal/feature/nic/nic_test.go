package nic_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"banger/internal/feature/nic"
	"banger/internal/vm"
)

// host is one that may lack TUN or room for a subnet.
type host struct{ tun, subnet error }

func (host) Attach(context.Context, vm.Lease) error { return nil }
func (host) Detach(context.Context, string) error   { return nil }
func (host) TAPs(context.Context) ([]string, error) { return []string{"btab12-01234567"}, nil }
func (h host) CheckTUN() error                      { return h.tun }

func (h host) Require(context.Context) (netip.Prefix, error) {
	return netip.MustParsePrefix("10.1.0.0/22"), h.subnet
}

// TestWhatIsLackingIsSaidBeforeAStartAndByDoctor holds the two to the same answers.
func TestWhatIsLackingIsSaidBeforeAStartAndByDoctor(t *testing.T) {
	tun, subnet := errors.New("no TUN"), errors.New("no room")
	for _, c := range []struct {
		host
		preflight error
		details   []string
	}{
		{host{}, nil, []string{"network devices can be made", "10.1.0.0/22"}},
		{host{tun: tun}, tun, []string{"no TUN", "10.1.0.0/22"}},
		{host{subnet: subnet}, subnet, []string{"network devices can be made", "no room"}},
	} {
		f := &nic.Feature{Links: c.host, Subnet: c.host}
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
