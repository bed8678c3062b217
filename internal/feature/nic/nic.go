// Package nic gives a VM its place on the network: a TAP on the instance's bridge, an address in the guest, and what the
// host's firewall lets it do.
package nic

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"banger/internal/agentproto"
	"banger/internal/feature"
	"banger/internal/network"
	"banger/internal/vm"
)

// Links is what the feature needs of the host.
type Links interface {
	// Prepare makes the TAP, of one that is kept ready if there is one, on its bridge but down, so that nothing passes, and
	// the bridge where it is missing.
	Prepare(ctx context.Context, lease vm.Lease) error
	// Admit lets a TAP that is prepared onto the network.
	Admit(ctx context.Context, tap string) error
	// Detach removes the TAP, and with the last one the bridge and those that are kept ready.
	Detach(ctx context.Context, tap string) error
	// TAPs names those of this instance, but for those that are kept ready while a VM has one.
	TAPs(ctx context.Context) ([]string, error)
	// CheckTUN reports whether TAPs can be made.
	CheckTUN() error
}

// Gate is what stands between guests and everything else. It lets nothing pass of a TAP that it does not know.
type Gate interface {
	// Guard lets a guest do what its policy says from now on, and no more.
	Guard(ctx context.Context, g network.Guest) error
	// Unguard forgets the guest behind a TAP. Gone is success.
	Unguard(ctx context.Context, tap string) error
	// Guarded names the TAPs that it knows.
	Guarded(ctx context.Context) ([]string, error)
	// CheckFirewall reports whether the kernel has what it is made of.
	CheckFirewall() error
}

// Subnet is where VMs have their addresses.
type Subnet interface {
	// Require says why there is none, or returns it.
	Require(ctx context.Context) (netip.Prefix, error)
}

// Feature is the NIC.
type Feature struct {
	Links    Links
	Gate     Gate
	Subnet   Subnet
	Defaults network.Policy // of VMs whose owner says nothing else
}

// Name implements feature.Feature.
func (*Feature) Name() string { return "nic" }

// Contribute adds eth0 and its address.
func (*Feature) Contribute(v vm.VM, b *feature.Blueprint) {
	b.Machine.NICs = append(b.Machine.NICs, vm.NIC{ID: "eth0", TAP: v.Lease.TAP, MAC: v.Lease.MAC})
	gateway := v.Lease.Gateway.String()
	b.Guest.Network = &agentproto.Network{
		MAC:     v.Lease.MAC,
		Address: v.Lease.Address.String(),
		Gateway: gateway,
		DNS:     []string{gateway},
		Search:  []string{network.Domain},
	}
	if v.Lease.Address6.IsValid() {
		b.Guest.Network.Address6, b.Guest.Network.Gateway6 = v.Lease.Address6.String(), v.Lease.Gateway6.String()
	}
	b.Hold(v.ID, vm.RecordTAP, v.Lease.TAP, vm.UntilStop)
}

// Preflight looks whether the host can give a VM a NIC.
func (f *Feature) Preflight(ctx context.Context, _ vm.VM) error {
	if err := f.Links.CheckTUN(); err != nil {
		return err
	}
	if err := f.Gate.CheckFirewall(); err != nil {
		return err
	}
	_, err := f.Subnet.Require(ctx)
	return err
}

// Checks implements feature.Checker.
func (f *Feature) Checks() []feature.Check {
	return []feature.Check{
		{
			Name:  "TUN",
			Probe: func(context.Context) (string, error) { return "network devices can be made", f.Links.CheckTUN() },
			Fix:   "load the module tun, and see that /dev/net/tun is there",
		}, {
			Name: "firewall",
			Probe: func(context.Context) (string, error) {
				return "the kernel has what the rules need", f.Gate.CheckFirewall()
			},
			Fix: "load the modules that are missing",
		}, {
			Name: "subnet",
			Probe: func(ctx context.Context) (string, error) {
				p, err := f.Subnet.Require(ctx)
				return p.String(), err
			},
			Fix: "set subnet in the daemon's configuration to one that is free",
		},
	}
}

// Up makes the TAP and lets it onto the network.
func (f *Feature) Up(ctx context.Context, v vm.VM, report feature.Report) error {
	if err := f.UpHeld(ctx, v, report); err != nil {
		return err
	}
	return f.Admit(ctx, v, report)
}

// UpHeld makes the TAP and keeps it off the network. Its guest's rules are there before it is.
func (f *Feature) UpHeld(ctx context.Context, v vm.VM, report feature.Report) error {
	report(v.Lease.TAP)
	if err := f.Gate.Guard(ctx, network.GuestOf(v, f.Defaults)); err != nil {
		return err
	}
	return f.Links.Prepare(ctx, v.Lease)
}

// Admit lets the TAP onto the network.
func (f *Feature) Admit(ctx context.Context, v vm.VM, _ feature.Report) error {
	return f.Links.Admit(ctx, v.Lease.TAP)
}

// Removes implements feature.Remover.
func (*Feature) Removes() vm.RecordKind { return vm.RecordTAP }

// Remove takes the TAP away, and then its guest's rules.
func (f *Feature) Remove(ctx context.Context, r vm.Record) error {
	return errors.Join(f.Links.Detach(ctx, r.Name), f.Gate.Unguard(ctx, r.Name))
}

// Find implements feature.Finder. A TAP's name does not tell whose it is.
func (f *Feature) Find(ctx context.Context) ([]vm.Record, error) {
	taps, err := f.Links.TAPs(ctx)
	known, gateErr := f.Gate.Guarded(ctx)
	names := append(taps, known...)
	slices.Sort(names)
	var out []vm.Record
	for _, name := range slices.Compact(names) {
		out = append(out, vm.Record{Kind: vm.RecordTAP, Name: name, Until: vm.UntilStop})
	}
	return out, errors.Join(err, gateErr)
}
