package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"banger/internal/fault"
)

// LogQuery chooses what Logs returns.
type LogQuery struct {
	Source string // "console", "firecracker", "network", "daemon" or "operation"
	Since  string // only what was written within a time span such as 10m, or since a point in time, RFC 3339; all when empty
	Lines  int    // the last ones; zero is all that is kept
	Follow bool   // go on with what is added, until the context ends
}

// Logs reads one of a VM's logs. The text of the first two is the guest's: escape it before showing it.
func (c *Client) Logs(ctx context.Context, selector string, q LogQuery) (io.ReadCloser, error) {
	v := url.Values{"source": {q.Source}, "tail": {strconv.Itoa(q.Lines)}, "follow": {strconv.FormatBool(q.Follow)}}
	if q.Since != "" {
		v.Set("since", q.Since)
	}
	res, err := c.request(ctx, http.MethodGet, vmPath(selector, "/logs?"+v.Encode()), nil) //nolint:bodyclose // whoever gets the stream does
	if err != nil {
		return nil, err
	}
	return &logStream{ReadCloser: res.Body, ctx: ctx, name: selector}, nil
}

// logStream says what an answer that breaks off means: that it ended is no news of the log.
type logStream struct {
	io.ReadCloser
	ctx  context.Context
	name string
}

// Read implements io.Reader.
func (l *logStream) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case l.ctx.Err() != nil:
		return n, context.Cause(l.ctx)
	}
	return n, fault.New(fault.Unavailable, "the daemon ended while it was read: %w", err).WithOp("read log of VM", l.name).
		WithHint("read it again: what came meanwhile is kept")
}
