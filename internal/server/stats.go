package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/lifecycle"
	"banger/internal/vm"
)

type statsInput struct {
	VMs    []string `query:"vm,explode" doc:"only this one: name, id or unique prefix of an id; may be repeated"`
	Labels []string `query:"label,explode" doc:"only those with this label: KEY or KEY=VALUE; may be repeated, then all must match"`
	Shared bool     `query:"pss" doc:"also the proportional set size, which takes the kernel a walk through each VM's memory"`
}

func (s *server) stats(a huma.API) {
	huma.Register(a, verb("stats", http.MethodGet, "/v1/stats", "What your VMs use, counted from the start of each", http.StatusOK),
		func(ctx context.Context, in *statsInput) (*answer[[]vm.Stats], error) {
			labels, err := vm.ParseSelector(in.Labels)
			if err != nil {
				return nil, outcome(err)
			}
			all, err := s.Verbs.Stats(ctx, callerOf(ctx), lifecycle.StatsRequest{VMs: in.VMs, Labels: labels, Shared: in.Shared})
			return &answer[[]vm.Stats]{all}, outcome(err)
		})
}
