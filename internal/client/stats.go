package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"banger/internal/vm"
)

// StatsQuery chooses whose figures Stats returns. Without names and labels it is all of the caller's VMs.
type StatsQuery struct {
	VMs    []string // names, ids or prefixes of ids
	Labels []string // KEY or KEY=VALUE
	Shared bool     // with PSS
}

// Stats tells what VMs use, counted from the start of each.
func (c *Client) Stats(ctx context.Context, q StatsQuery) ([]vm.Stats, error) {
	v := url.Values{"vm": q.VMs, "label": q.Labels, "pss": {strconv.FormatBool(q.Shared)}}
	return call[[]vm.Stats](ctx, c, http.MethodGet, "/v1/stats?"+v.Encode(), nil)
}
