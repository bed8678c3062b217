package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/usage"
	"banger/internal/vm"
)

// Usage keeps the accounts of the state directory. *usage.Keeper does.
type Usage interface {
	Totals(ctx context.Context) ([]usage.Total, error)
	Prune(ctx context.Context, caller vm.Caller, r usage.Request) ([]usage.Freed, error)
}

func (s *server) usage(a huma.API) {
	huma.Register(a, verb("disk-usage", http.MethodGet, "/v1/system/df", "What the parts of the state directory occupy, everybody's together", http.StatusOK),
		func(ctx context.Context, _ *struct{}) (*answer[[]api.StateUsage], error) {
			all, err := s.Usage.Totals(ctx)
			out := make([]api.StateUsage, 0, len(all))
			for _, t := range all {
				out = append(out, api.StateUsage{
					Category: string(t.Category), Count: t.Count, Allocated: t.Allocated, Shared: t.Shared, Reclaimable: t.Reclaimable, Unused: t.Unused,
				})
			}
			return &answer[[]api.StateUsage]{out}, outcome(err)
		})
	huma.Register(a, verb("prune", http.MethodPost, "/v1/system/prune", "Free what nothing needs, as root", http.StatusOK),
		func(ctx context.Context, in *body[api.Prune]) (*answer[[]api.Pruned], error) {
			all, err := s.Usage.Prune(ctx, callerOf(ctx), usage.Request{DryRun: in.Body.DryRun, Trash: in.Body.Trash})
			out := make([]api.Pruned, 0, len(all))
			for _, f := range all {
				p := api.Pruned{Category: string(f.Category), Name: f.Name, Why: f.Why, Size: f.Size, Done: !in.Body.DryRun && f.Err == nil}
				if f.Err != nil {
					p.Error = fault.From(f.Err)
				}
				out = append(out, p)
			}
			return &answer[[]api.Pruned]{out}, outcome(err)
		})
}
