package client

import (
	"context"
	"io"
	"net/http"
)

// Metrics is the daemon's figures in the text format of Prometheus.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	res, err := c.request(ctx, http.MethodGet, "/v1/metrics", nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	page, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return string(page), err
}
