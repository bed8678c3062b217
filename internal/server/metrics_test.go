package server_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/server"
)

// TestThePortOfMetrics holds that it serves those and nothing else of the API.
func TestThePortOfMetrics(t *testing.T) {
	w := newWorld(t)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.NewMetrics(w.verbs, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- server.ServeMetrics(srv, l) }()
	c := &http.Client{Transport: &http.Transport{}}
	ask := func(method, path string) (status int, kind, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header.Get("Content-Type"), string(text)
	}
	if status, kind, body := ask("GET", "/metrics"); status != 200 || kind != "text/plain; version=0.0.4; charset=utf-8" || body != "banger_vms 1\n" {
		t.Errorf("%d %s %q", status, kind, body)
	}
	for _, other := range []string{"GET /v1/metrics", "GET /v1/vms", "POST /metrics", "POST /v1/vms"} {
		method, path, _ := strings.Cut(other, " ")
		if status, _, body := ask(method, path); status != 404 || !strings.Contains(body, `"code":"not_found"`) {
			t.Errorf("%s: %d %s", other, status, body)
		}
	}
	w.verbs.fail(fault.New(fault.Corrupt, "no"))
	if status, _, body := ask("GET", "/metrics"); status != 500 || !strings.Contains(body, `"code":"corrupt"`) {
		t.Errorf("a failure: %d %s", status, body)
	}
	c.CloseIdleConnections()
	if err := errors.Join(srv.Close()); err != nil || !errors.Is(<-ended, http.ErrServerClosed) {
		t.Errorf("its end: %v", err)
	}
}
