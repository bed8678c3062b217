package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"

	"banger/internal/server"
)

// serveMetrics serves the daemon's figures on a port of the loopback, where the configuration asks for it, until the
// returned function is called. A port that another has keeps nobody from his VMs.
func (d *Daemon) serveMetrics(ctx context.Context) (stop func()) {
	addr := d.cfg.Metrics
	if !addr.IsValid() {
		return func() {}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		err = refused(err, addr)
		d.listeners.note("metrics", addr.String(), err)
		d.log.Error("metrics are not served", "error", err, "hint", "choose another port in [metrics] and restart the daemon")
		return func() {}
	}
	d.listeners.note("metrics", addr.String(), nil)
	srv := server.NewMetrics(d, d.log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.ServeMetrics(srv, l); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("serve metrics", "error", err)
		}
	}()
	d.log.Info("metrics are served", "address", addr)
	return func() {
		_ = srv.Close()
		<-done
	}
}
