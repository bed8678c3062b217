package daemon

import (
	"context"
	"strings"
	"time"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/host/forwarding"
	"banger/internal/network"
	"banger/internal/vm"
)

// probeBudget is how long a real connection may take to come about.
const probeBudget = 10 * time.Second

// Explain says why a packet of a VM's would arrive somewhere, or would not, and tries where that is asked for.
func (d *Daemon) Explain(ctx context.Context, caller vm.Caller, selector, destination string, probe bool) (api.Explanation, error) {
	v, err := d.manager.Find(ctx, caller, selector)
	if err != nil {
		return api.Explanation{}, err
	}
	if v.State != vm.Running {
		return api.Explanation{}, fault.New(fault.WrongState, "it is %s", v.State).WithOp("explain the network of VM", v.Name).
			WithHint("start it: `banger vm start %s`", v.Name)
	}
	to, err := network.ParseDestination(destination)
	if err != nil {
		return api.Explanation{}, err
	}
	if probe && to.Port == 0 {
		return api.Explanation{}, fault.New(fault.Invalid, "it has no port to connect to").WithOp("probe", destination).
			WithHint("such as %s:443", destination)
	}
	f := network.Facts{Guest: network.GuestOf(v, d.cfg.Network), Name: to.Name, Address: to.Address, Port: to.Port}
	if err := d.facts(ctx, caller, &f); err != nil {
		return api.Explanation{}, err
	}
	e := api.Explanation{VM: v.Name, Destination: to.String(), Explanation: network.Explain(f)}
	if probe {
		e.Probe = d.probe(ctx, caller, v, to)
	}
	return e, nil
}

// facts finds out what there is to know.
func (d *Daemon) facts(ctx context.Context, caller vm.Caller, f *network.Facts) error {
	p := f.Guest.Policy
	if f.Name != "" {
		asks := network.IsVM(f.Name) || p.Egress == network.EgressAll || p.Egress == network.EgressList && p.Allow.HasName(f.Name)
		if !asks { // to ask would be noted as a refusal
			f.Unnamed = network.WhyUnnamed(p)
			return nil
		}
		addrs, code := d.names.server.Tell(f.Guest, f.Name)
		if len(addrs) == 0 {
			f.Unnamed = "the guest is told no address of it: " + code
			f.Other = d.named(ctx, caller, f.Name)
			return nil
		}
		f.Address = addrs[0]
	}
	other, known, err := d.store.At(ctx, f.Address)
	if err != nil {
		return err
	}
	if known && other.Process != nil && other.ID != f.Guest.ID {
		g := network.GuestOf(other, d.cfg.Network)
		f.Other = &g
	}
	f.Route = d.links.Route(f.Address)
	learned, err := d.gate.tables.Learned(ctx, f.Guest.TAP)
	if err != nil {
		return err
	}
	for _, l := range learned {
		if l.Addr == f.Address {
			f.Learned, f.By = l.Expires, l.Name
		}
	}
	f.Forwards = forwarding.On(f.Address)
	accepts, err := d.gate.others.List(ctx)
	for _, a := range accepts {
		if !a.There {
			f.Drops = append(f.Drops, a.Firewall)
		}
	}
	return err
}

// named is the guest of the caller's that runs and has a name, whoever is told it; nil where there is none.
func (d *Daemon) named(ctx context.Context, caller vm.Caller, name string) *network.Guest {
	of, ok := strings.CutSuffix(name, "."+network.Domain)
	if !ok {
		return nil
	}
	of = of[strings.LastIndex(of, ".")+1:] // api.dev.vm is dev's
	v, err := d.manager.Find(ctx, caller, of)
	if err != nil || v.Name != of || v.Process == nil {
		return nil
	}
	g := network.GuestOf(v, d.cfg.Network)
	return &g
}

// reason is what a guest that could not connect says in the end: before it stands where to, which is known.
func reason(msg string) string {
	said, ok := strings.CutPrefix(msg, "the guest answered: ")
	if !ok {
		return msg
	}
	return said[strings.LastIndex(": "+said, ": "):]
}

// probe has the guest connect.
func (d *Daemon) probe(ctx context.Context, caller vm.Caller, v vm.VM, to network.Destination) *api.Probe {
	ctx, cancel := context.WithTimeout(ctx, probeBudget)
	defer cancel()
	host := to.Name
	if to.Address.IsValid() {
		host = to.Address.String()
	}
	begun := time.Now()
	conn, err := d.manager.Dial(ctx, caller, string(v.ID), host, int(to.Port))
	p := &api.Probe{Connected: err == nil, Took: time.Since(begun)}
	if err != nil {
		p.Error = reason(fault.From(err).Msg)
	} else {
		_ = conn.Close()
	}
	return p
}
