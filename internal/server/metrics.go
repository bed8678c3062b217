package server

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"banger/internal/fault"
	"banger/internal/metrics"
)

// metrics sends the daemon's figures as Prometheus reads them.
func (s *server) metrics(w http.ResponseWriter, r *http.Request) { sendMetrics(w, r, s.Daemon) }

func sendMetrics(w http.ResponseWriter, r *http.Request, d Daemon) {
	page, err := d.Metrics(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", metrics.ContentType)
	_, _ = io.WriteString(w, page) // a client that has gone needs no answer
}

// Bounds of the port that any user of the host can reach.
const (
	portTimeout     = 10 * time.Second
	portConnections = 16
)

// NewMetrics returns a server of nothing but the daemon's figures, for ServeMetrics.
func NewMetrics(d Daemon, log *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { sendMetrics(w, r, d) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, fault.New(fault.NotFound, "there is no %s %s", r.Method, r.URL.Path).WithHint("there is nothing but GET /metrics"))
	})
	return &http.Server{
		Handler: mux, ReadTimeout: portTimeout, WriteTimeout: portTimeout, IdleTimeout: portTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// ServeMetrics serves it on a listener until it is closed. Only so many connections are taken at once: those who
// cannot reach the API must not be able to take its descriptors.
func ServeMetrics(srv *http.Server, l net.Listener) error {
	return srv.Serve(netutil.LimitListener(l, portConnections))
}
