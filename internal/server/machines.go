package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/op"
	"banger/internal/vm"
)

// Inputs and outputs, as huma takes them.
type (
	body[T any]   struct{ Body T }
	answer[T any] struct{ Body T }
	machine       struct {
		VM string `path:"vm" doc:"name, id or unique prefix of an id"`
	}
	// huma does not look into embedded structs that are not exported.
	listInput struct {
		Brief bool `query:"brief" doc:"only what a table of many shows: id, name, owner, labels, image, spec, pending, state, reason, address, started"`
	}
	stopInput struct {
		VM   string `path:"vm" doc:"name, id or unique prefix of an id"`
		Body *api.StopVM
	}
	deleteInput struct {
		VM    string `path:"vm" doc:"name, id or unique prefix of an id"`
		Force bool   `query:"force" doc:"also when it is running"`
		Now   bool   `query:"now" doc:"destroy its disks at once instead of putting it in the trash"`
	}
)

// verb describes an operation of the API.
func verb(id, method, path, summary string, status int) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, DefaultStatus: status, MaxBodyBytes: maxBody}
}

func (s *server) machines(a huma.API) {
	huma.Register(a, verb("create-vm", http.MethodPost, "/v1/vms", "Begin to create a VM", http.StatusAccepted),
		func(ctx context.Context, in *body[api.CreateVM]) (*answer[op.Operation], error) {
			r := in.Body
			restart, err := vm.ParseRestart(r.Restart)
			if err != nil {
				return nil, outcome(fault.From(err).InOp("create VM", r.Name))
			}
			return began(s.Verbs.Create(ctx, callerOf(ctx), lifecycle.CreateRequest{
				Name: r.Name, Image: r.Image, Labels: r.Labels, AuthorizedKeys: r.AuthorizedKeys,
				Spec:     vm.Spec{VCPU: r.VCPU, Memory: r.Memory, RootDisk: r.RootDisk, WorkDisk: r.WorkDisk},
				Timezone: r.Timezone, Locale: r.Locale, Restart: restart, Settings: r.Settings, Cold: r.Cold,
			}))
		})
	huma.Register(a, verb("list-vms", http.MethodGet, "/v1/vms", "List your VMs by name", http.StatusOK),
		func(ctx context.Context, in *listInput) (*answer[[]api.VM], error) {
			all, err := s.Verbs.List(ctx, callerOf(ctx))
			out := make([]api.VM, 0, len(all))
			for _, v := range all {
				if in.Brief {
					out = append(out, brief(v))
				} else {
					out = append(out, s.show(v))
				}
			}
			return &answer[[]api.VM]{out}, outcome(err)
		})
	huma.Register(a, verb("show-vm", http.MethodGet, "/v1/vms/{vm}", "Show a VM", http.StatusOK),
		func(ctx context.Context, in *machine) (*answer[api.VM], error) {
			v, err := s.Verbs.Find(ctx, callerOf(ctx), in.VM)
			return &answer[api.VM]{s.show(v)}, outcome(err)
		})
	huma.Register(a, verb("start-vm", http.MethodPost, "/v1/vms/{vm}/start", "Begin to start a VM", http.StatusAccepted),
		func(ctx context.Context, in *machine) (*answer[op.Operation], error) {
			return began(s.Verbs.Start(ctx, callerOf(ctx), in.VM))
		})
	huma.Register(a, verb("stop-vm", http.MethodPost, "/v1/vms/{vm}/stop", "Begin to shut a VM down in order", http.StatusAccepted),
		func(ctx context.Context, in *stopInput) (*answer[op.Operation], error) {
			var r api.StopVM
			if in.Body != nil {
				r = *in.Body
			}
			return began(s.Verbs.Stop(ctx, callerOf(ctx), in.VM, r.Timeout))
		})
	huma.Register(a, verb("kill-vm", http.MethodPost, "/v1/vms/{vm}/kill", "Begin to end a VM's hypervisor at once", http.StatusAccepted),
		func(ctx context.Context, in *machine) (*answer[op.Operation], error) {
			return began(s.Verbs.Kill(ctx, callerOf(ctx), in.VM))
		})
	huma.Register(a, verb("delete-vm", http.MethodDelete, "/v1/vms/{vm}", "Begin to delete a VM: it goes to the trash with its disks", http.StatusAccepted),
		func(ctx context.Context, in *deleteInput) (*answer[op.Operation], error) {
			return began(s.Verbs.Delete(ctx, callerOf(ctx), in.VM, lifecycle.DeleteRequest{Force: in.Force, Now: in.Now}))
		})
	huma.Register(a, verb("ping-vm", http.MethodGet, "/v1/vms/{vm}/ping", "Ask a VM's agent", http.StatusOK),
		func(ctx context.Context, in *machine) (*answer[api.Ping], error) {
			info, took, err := s.Verbs.Ping(ctx, callerOf(ctx), in.VM)
			return &answer[api.Ping]{api.Ping{
				RoundTrip: took, Agent: info.Agent, Kernel: info.Kernel, OS: info.OS, Uptime: info.Uptime, AgentRSS: info.AgentRSS,
			}}, outcome(err)
		})
}

func began(o op.Operation, err error) (*answer[op.Operation], error) {
	return &answer[op.Operation]{o}, outcome(err)
}

// brief keeps what a table of many VMs shows.
func brief(v vm.VM) api.VM {
	return api.VM{
		ID: v.ID, Name: v.Name, Owner: v.Owner, Labels: v.Labels, Image: v.Image, Spec: v.Spec, Pending: v.Pending,
		State: v.State, Reason: v.Reason, Address: address(v.Lease.Address), Address6: address(v.Lease.Address6), Started: v.Started,
	}
}

func address(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.Addr().String()
}

// show is a VM without its secrets.
func (s *server) show(v vm.VM) api.VM {
	out := api.VM{
		ID: v.ID, Name: v.Name, Owner: v.Owner, Labels: v.Labels, Arch: v.Arch, Image: v.Image, Spec: v.Spec,
		RootBackend: string(v.RootBackend), Settings: v.Settings, Pending: v.Pending,
		Policy:   api.PolicyOf(network.PolicyOf(v, s.Policy)),
		Timezone: v.Timezone, Locale: v.Locale, Restart: v.Restart.String(),
		Desired: v.Desired, State: v.State, Reason: v.Reason, MAC: v.Lease.MAC,
		HostKey: v.Access.HostKey, Keys: v.Access.AuthorizedKeys, Dir: s.Layout.VM(v.ID),
		Logs:    api.Logs{Console: s.Layout.ConsoleLog(v.ID), Firecracker: s.Layout.FirecrackerLog(v.ID)},
		Address: address(v.Lease.Address), Address6: address(v.Lease.Address6), Created: v.Created, Started: v.Started, Warm: v.Golden != "",
	}
	if v.Process != nil {
		out.PID = v.Process.PID
	}
	return out
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"code":"internal","msg":"the answer cannot be encoded"}`)
	}
	return append(text, '\n')
}
