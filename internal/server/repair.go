package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/op"
)

func (s *server) repair(a huma.API) {
	look := func(mend bool) func(context.Context, *struct{}) (*answer[[]api.Finding], error) {
		return func(ctx context.Context, _ *struct{}) (*answer[[]api.Finding], error) {
			all, err := s.Verbs.Repair(ctx, callerOf(ctx), mend)
			out := make([]api.Finding, 0, len(all))
			for _, f := range all {
				shown := api.Finding{
					Kind: string(f.Kind), Subject: f.Subject, VM: f.VM, Name: f.Name, Why: f.Why, Repair: f.Repair, Hint: f.Hint,
					Done: mend && f.Repair != "" && f.Err == nil,
				}
				if f.Err != nil {
					shown.Error = fault.From(f.Err)
				}
				out = append(out, shown)
			}
			return &answer[[]api.Finding]{out}, outcome(err)
		}
	}
	huma.Register(a, verb("list-findings", http.MethodGet, "/v1/repair", "Compare what the daemon knows with what the host has", http.StatusOK), look(false))
	huma.Register(a, verb("repair", http.MethodPost, "/v1/repair", "Mend what differs, as the daemon does every minute", http.StatusOK), look(true))
	huma.Register(a, verb("adopt-vm", http.MethodPost, "/v1/repair/adopt", "Begin to take back a VM whose directory the daemon does not know", http.StatusAccepted),
		func(ctx context.Context, in *body[api.AdoptVM]) (*answer[op.Operation], error) {
			return began(s.Verbs.Adopt(ctx, callerOf(ctx), in.Body.VM, in.Body.Name))
		})
}
