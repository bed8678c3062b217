package server

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/agentproto"
	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/vm"
)

func (s *server) ports(a huma.API) {
	huma.Register(a, verb("list-ports", http.MethodGet, "/v1/vms/{vm}/ports", "List the ports of the host that lead to a VM, and what listens in it", http.StatusOK),
		func(ctx context.Context, in *machine) (*answer[api.Ports], error) {
			v, err := s.Verbs.Find(ctx, callerOf(ctx), in.VM)
			if err != nil {
				return nil, outcome(err)
			}
			out := api.Ports{Doors: doors(v, s.Daemon.ClosedDoors(v.ID)), Listening: []api.GuestListener{}}
			if v.State == vm.Running {
				all, err := s.Verbs.Listeners(ctx, callerOf(ctx), string(v.ID))
				out.Listening, out.More, out.Error = listeners(all, out.Doors), all.More, fault.From(err)
			}
			return &answer[api.Ports]{out}, nil
		})
}

func doors(v vm.VM, closed map[vm.Door]error) []api.Door {
	out := []api.Door{}
	for _, d := range vm.DoorsOf(v) {
		x := api.Door{
			Spec: d.String(), Address: d.Listen.Addr().String(), HostPort: int(d.Listen.Port()), GuestPort: int(d.Port),
			State: api.DoorOpen, Error: fault.From(closed[d]),
		}
		switch {
		case v.Process == nil:
			x.State = api.DoorClosed
		case x.Error != nil:
			x.State = api.DoorFailed
		}
		out = append(out, x)
	}
	return out
}

func listeners(all agentproto.Listeners, doors []api.Door) []api.GuestListener {
	out := []api.GuestListener{}
	for _, l := range all.All {
		at, err := netip.ParseAddrPort(l.Address)
		if err != nil {
			continue
		}
		x := api.GuestListener{Address: at.Addr().String(), Port: int(at.Port()), PID: l.PID, Program: l.Program}
		for _, d := range doors {
			if d.GuestPort == x.Port && d.State == api.DoorOpen && x.Door == "" {
				x.Door = netip.AddrPortFrom(netip.MustParseAddr(d.Address), uint16(d.HostPort)).String()
			}
		}
		out = append(out, x)
	}
	return out
}
