package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/op"
)

type (
	forkInput struct {
		VM   string `path:"vm" doc:"name, id or unique prefix of an id"`
		Body *api.ForkVM
	}
	makeCheckpointInput struct {
		VM   string `path:"vm" doc:"name, id or unique prefix of an id"`
		Body api.MakeCheckpoint
	}
	checkpoint struct {
		VM         string `path:"vm" doc:"name, id or unique prefix of an id"`
		Checkpoint string `path:"checkpoint" doc:"its name"`
	}
)

func (s *server) snapshots(a huma.API) {
	huma.Register(a, verb("fork-vm", http.MethodPost, "/v1/vms/{vm}/fork", "Begin to make VMs of another, with its memory where it runs", http.StatusAccepted),
		func(ctx context.Context, in *forkInput) (*answer[op.Operation], error) {
			var r api.ForkVM
			if in.Body != nil {
				r = *in.Body
			}
			return began(s.Verbs.Fork(ctx, callerOf(ctx), in.VM, lifecycle.ForkRequest{Name: r.Name, Count: r.Count}))
		})
	huma.Register(a, verb("list-checkpoints", http.MethodGet, "/v1/vms/{vm}/checkpoints", "List what a VM can be taken back to", http.StatusOK),
		func(ctx context.Context, in *machine) (*answer[[]api.Checkpoint], error) {
			all, err := s.Verbs.Checkpoints(ctx, callerOf(ctx), in.VM)
			out := make([]api.Checkpoint, len(all))
			for i, c := range all {
				out[i] = api.Checkpoint{Name: c.Name, Created: c.Created, Spec: c.VM.Spec, Size: c.Size, Error: fault.From(c.Err)}
			}
			return &answer[[]api.Checkpoint]{out}, outcome(err)
		})
	huma.Register(a, verb("make-checkpoint", http.MethodPost, "/v1/vms/{vm}/checkpoints", "Begin to keep a running VM as it is, memory and disks", http.StatusAccepted),
		func(ctx context.Context, in *makeCheckpointInput) (*answer[op.Operation], error) {
			return began(s.Verbs.Checkpoint(ctx, callerOf(ctx), in.VM, in.Body.Name))
		})
	huma.Register(a, verb("restore-checkpoint", http.MethodPost, "/v1/vms/{vm}/checkpoints/{checkpoint}/restore", "Begin to take a VM back; the disks that are replaced go to the trash", http.StatusAccepted),
		func(ctx context.Context, in *checkpoint) (*answer[op.Operation], error) {
			return began(s.Verbs.Rollback(ctx, callerOf(ctx), in.VM, in.Checkpoint))
		})
	huma.Register(a, verb("delete-checkpoint", http.MethodDelete, "/v1/vms/{vm}/checkpoints/{checkpoint}", "Delete a checkpoint; the VM stays as it is", http.StatusNoContent),
		func(ctx context.Context, in *checkpoint) (*struct{}, error) {
			return nil, outcome(s.Verbs.DeleteCheckpoint(ctx, callerOf(ctx), in.VM, in.Checkpoint))
		})
}
