package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/op"
)

type restoreInput struct {
	VM   string `path:"vm" doc:"name, id or unique prefix of an id"`
	Body *api.RestoreVM
}

func (s *server) trash(a huma.API) {
	huma.Register(a, verb("list-trash", http.MethodGet, "/v1/trash", "List your deleted VMs, the latest first", http.StatusOK),
		func(ctx context.Context, _ *struct{}) (*answer[[]api.Trashed], error) {
			out := []api.Trashed{}
			for _, v := range s.Verbs.Trash(callerOf(ctx)) {
				t := api.Trashed{VM: s.show(v.VM), Deleted: v.Deleted, Expires: v.Expires}
				t.Dir = s.Layout.Trashed(v.ID)
				out = append(out, t)
			}
			return &answer[[]api.Trashed]{out}, nil
		})
	huma.Register(a, verb("restore-vm", http.MethodPost, "/v1/trash/{vm}/restore", "Begin to take a VM back out of the trash", http.StatusAccepted),
		func(ctx context.Context, in *restoreInput) (*answer[op.Operation], error) {
			var r api.RestoreVM
			if in.Body != nil {
				r = *in.Body
			}
			return began(s.Verbs.Restore(ctx, callerOf(ctx), in.VM, r.Name))
		})
	huma.Register(a, verb("destroy-vm", http.MethodDelete, "/v1/trash/{vm}", "Begin to destroy a VM in the trash, with its disks", http.StatusAccepted),
		func(ctx context.Context, in *machine) (*answer[op.Operation], error) {
			return began(s.Verbs.Destroy(callerOf(ctx), in.VM))
		})
}
