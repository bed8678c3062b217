package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/lifecycle"
	"banger/internal/op"
)

type setInput struct {
	VM   string `path:"vm" doc:"name, id or unique prefix of an id"`
	Body api.SetVM
}

func (s *server) sets(a huma.API) {
	huma.Register(a, verb("set-vm", http.MethodPatch, "/v1/vms/{vm}", "Begin to change what is asked of a VM", http.StatusAccepted),
		func(ctx context.Context, in *setInput) (*answer[op.Operation], error) {
			return began(s.Verbs.Set(ctx, callerOf(ctx), in.VM, lifecycle.SetRequest(in.Body)))
		})
	huma.Register(a, verb("plan-vm", http.MethodPost, "/v1/vms/{vm}/plan", "Tell what such a change would alter, and do nothing", http.StatusOK),
		func(ctx context.Context, in *setInput) (*answer[[]api.Altered], error) {
			all, err := s.Verbs.PlanSet(ctx, callerOf(ctx), in.VM, lifecycle.SetRequest(in.Body))
			out := make([]api.Altered, 0, len(all))
			for _, x := range all {
				out = append(out, api.Altered(x))
			}
			return &answer[[]api.Altered]{out}, outcome(err)
		})
}
