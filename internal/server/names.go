package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
)

func (s *server) names(a huma.API) {
	huma.Register(a, verb("dns", http.MethodGet, "/v1/dns", "Whether the host's programs find VMs by name, proved by one that runs", http.StatusOK),
		func(ctx context.Context, _ *struct{}) (*answer[api.DNS], error) {
			now, err := s.Daemon.DNS(ctx, callerOf(ctx))
			return &answer[api.DNS]{now}, outcome(err)
		})
	huma.Register(a, verb("set-up-dns", http.MethodPost, "/v1/dns/setup", "Have the host's resolver ask the daemon for names of VMs, as root", http.StatusOK),
		func(ctx context.Context, in *body[api.DNSRequest]) (*answer[api.DNSChange], error) {
			change, err := s.Daemon.SetUpDNS(ctx, callerOf(ctx), in.Body.DryRun)
			return &answer[api.DNSChange]{change}, outcome(err)
		})
	huma.Register(a, verb("undo-dns", http.MethodPost, "/v1/dns/undo", "Leave the host's resolver as it was before, as root", http.StatusOK),
		func(ctx context.Context, in *body[api.DNSRequest]) (*answer[api.DNSChange], error) {
			change, err := s.Daemon.UndoDNS(ctx, callerOf(ctx), in.Body.DryRun)
			return &answer[api.DNSChange]{change}, outcome(err)
		})
}
