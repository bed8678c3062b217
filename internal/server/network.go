package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/vm"
)

// Network is the host's, as far as the instance has a hand in it.
type Network interface {
	// Explain says why a packet of a VM's would arrive somewhere, or would not, and has the guest try where probe is set.
	Explain(ctx context.Context, caller vm.Caller, selector, destination string, probe bool) (api.Explanation, error)
	// UninstallNetwork takes away what the instance has changed of the host's network, and names it, a line each.
	UninstallNetwork(ctx context.Context, caller vm.Caller, dryRun bool) ([]string, error)
}

type explainInput struct {
	VM   string `path:"vm" doc:"name, id or unique prefix of an id"`
	Body api.Explain
}

func (s *server) network(a huma.API) {
	huma.Register(a, verb("explain-network", http.MethodPost, "/v1/vms/{vm}/network/explain", "Say why a packet of a VM's would arrive, or would not", http.StatusOK),
		func(ctx context.Context, in *explainInput) (*answer[api.Explanation], error) {
			e, err := s.Network.Explain(ctx, callerOf(ctx), in.VM, in.Body.Destination, in.Body.Probe)
			return &answer[api.Explanation]{e}, outcome(err)
		})
	huma.Register(a, verb("uninstall-network", http.MethodPost, "/v1/system/uninstall-network", "Take away what was changed of the host's network, as root", http.StatusOK),
		func(ctx context.Context, in *body[api.UninstallNetwork]) (*answer[[]string], error) {
			lines, err := s.Network.UninstallNetwork(ctx, callerOf(ctx), in.Body.DryRun)
			if lines == nil {
				lines = []string{}
			}
			return &answer[[]string]{lines}, outcome(err)
		})
}
