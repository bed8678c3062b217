package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/api"
	"banger/internal/cli/exit"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
)

// future is a daemon of a later release, as this release's client meets it.
func future(t *testing.T, answers map[string]string) *client.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for route, answer := range answers {
		mux.HandleFunc(route, func(w http.ResponseWriter, _ *http.Request) {
			status, body, _ := strings.Cut(answer, " ")
			var code int
			_, _ = fmt.Sscan(status, &code)
			w.WriteHeader(code)
			_, _ = fmt.Fprint(w, body)
		})
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return client.New(socket)
}

// TestANewerDaemon holds that a client takes what it knows of answers that say more.
func TestANewerDaemon(t *testing.T) {
	c := future(t, map[string]string{
		"GET /v1/vms/dev":       `200 {"name":"dev","state":"hibernating","gpu":{"count":1},"address":"fd00::1","spec":{"vcpu":2,"numa":[1]}}`,
		"GET /v1/vms/other":     `429 {"code":"rate_limited","msg":"too many requests","retry_after":3,"hint":"wait"}`,
		"GET /v1/vms/proxy":     `502 <html>Bad Gateway</html>`,
		"GET /v1/vms/cut":       `200 {"name":"de`,
		"POST /v1/vms/dev/stop": `202 {"id":"op-1","state":"running","stages":[{"name":"x","weight":3}],"parent":"op-0"}`,
		"GET /v1/operations/op-1/events": "200 : comment\nretry: 5\nid: 7\nevent: hint\ndata: {\"x\":1}\n\n" +
			"event: operation\ndata: {\"id\":\"op-1\",\"state\":\"running\",\"eta\":5}\n\nevent: operation\ndata: {\"id\":\"op-1\",\"state\":\"done\"}\n\n",
		"GET /v1/operations/op-2/events": "200 event: operation\ndata: [\n\n",
	})
	ctx := t.Context()
	v, err := c.VM(ctx, "dev")
	if err != nil || v.Name != "dev" || v.State != "hibernating" || v.Spec.VCPU != 2 {
		t.Errorf("VM: %+v, %v", v, err)
	}
	_, err = c.VM(ctx, "other")
	want := &fault.Error{Code: "rate_limited", Msg: "too many requests", Hint: "wait"}
	if diff := cmp.Diff(want, fault.From(err)); diff != "" || exit.Of(err) != 1 {
		t.Errorf("a code that is not known yet: exit status %d, %s", exit.Of(err), diff)
	}
	if _, err := c.VM(ctx, "proxy"); !fault.Is(err, fault.Incompatible) || err.Error() != "the daemon answered 502 Bad Gateway, which this command does not understand" {
		t.Errorf("no fault: %v", err)
	}
	if _, err := c.VM(ctx, "cut"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("half an answer: %v", err)
	}
	o, err := c.StopVM(ctx, "dev", api.StopVM{})
	if err != nil || o.ID != "op-1" || len(o.Stages) != 1 {
		t.Errorf("operation: %+v, %v", o, err)
	}
	var states []op.State
	last, err := c.Follow(ctx, "op-1", func(o op.Operation) { states = append(states, o.State) })
	if err != nil || last.State != op.Done || !cmp.Equal(states, []op.State{op.Underway, op.Done}) {
		t.Errorf("followed %v to %+v, %v", states, last, err)
	}
	if _, err := c.Follow(ctx, "op-2", func(op.Operation) {}); !fault.Is(err, fault.Incompatible) {
		t.Errorf("an event that is none: %v", err)
	}
}

// TestAnOlderDaemon holds that a request it does not know is refused as what it is.
func TestAnOlderDaemon(t *testing.T) {
	w := newWorld(t)
	refused := func(request, body string) *fault.Error {
		conn := w.raw(fmt.Sprintf("%s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", request, len(body), body))
		_, text, _ := strings.Cut(drainText(t, conn), "\r\n\r\n")
		var f fault.Error
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Fatalf("%s: %s: %v", request, text, err)
		}
		return &f
	}
	// Leaving out what it does not know would make another VM than was asked for.
	if f := refused("POST /v1/vms", `{"name":"dev","gpu":1}`); f.Code != fault.Invalid || !strings.Contains(f.Msg, "gpu") {
		t.Errorf("an unknown field: %+v", f)
	}
	if f := refused("POST /v1/vms/dev/snapshot", ""); f.Code != fault.NotFound || !strings.Contains(f.Hint, "newer command") {
		t.Errorf("an unknown route: %+v", f)
	}
	if asked := w.verbs.took(); asked != "" {
		t.Errorf("the verbs were asked %s", asked)
	}
}
