package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

func drainText(t *testing.T, conn net.Conn) string {
	t.Helper()
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestASelectorReachesTheVerbAsItIs holds that no selector leads to another route.
func TestASelectorReachesTheVerbAsItIs(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.client, t.Context()
	for _, s := range []string{
		".", "..", "...", "../../version", "a/b", "//", "dev/start", "dev?force=true", "dev#x", "%2e%2e", "%", "a b", "\x00", "\x1b[31m",
		"\n", "\\", "ü", "\xff", strings.Repeat("x", 4096), "pull", "debian:12",
	} {
		for asks, call := range map[string]func() error{
			"find":         func() error { _, err := c.VM(ctx, s); return err },
			"start":        func() error { _, err := c.StartVM(ctx, s); return err },
			"kill":         func() error { _, err := c.KillVM(ctx, s); return err },
			"image":        func() error { _, err := c.Image(ctx, s); return err },
			"delete image": func() error { return c.DeleteImage(ctx, s) },
			"dial": func() error {
				w.verbs.fail(fault.New(fault.NotFound, "no VM has this name"))
				defer w.verbs.fail(nil)
				_, err := c.Dial(ctx, s, 22)
				return err
			},
			"ssh": func() error {
				w.verbs.fail(fault.New(fault.NotFound, "no VM has this name"))
				defer w.verbs.fail(nil)
				_, err := c.SSH(ctx, s)
				return err
			},
		} {
			err := call()
			if err != nil && !fault.Is(err, fault.NotFound) {
				t.Errorf("%s %q: %v", asks, s, err)
			}
			if asked, want := w.verbs.took(), fmt.Sprintf("%s %q", asks, s); !strings.HasPrefix(asked, want) {
				t.Errorf("asked %q, want %q", asked, want)
			}
		}
		if _, err := c.DeleteVM(ctx, s, api.DeleteVM{Force: true}); err != nil || w.verbs.took() != fmt.Sprintf("delete %q true", s) {
			t.Errorf("delete %q: %v", s, err)
		}
		if _, err := c.Logs(ctx, s, client.LogQuery{Source: "console"}); !fault.Is(err, fault.NotFound) || w.verbs.took() != fmt.Sprintf("find %q", s) {
			t.Errorf("logs of %q: %v", s, err)
		}
		if _, err := c.Operation(ctx, op.ID(s)); !fault.Is(err, fault.NotFound) {
			t.Errorf("operation %q: %v", s, err)
		}
	}
}

func TestAnEmptyNameIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.client, t.Context()
	for _, call := range []func() error{
		func() error { _, err := c.VM(ctx, ""); return err },
		func() error { _, err := c.StartVM(ctx, ""); return err },
		func() error { _, err := c.DeleteVM(ctx, "", api.DeleteVM{Force: true}); return err },
		func() error { _, err := c.Dial(ctx, "", 22); return err },
		func() error { _, err := c.SSH(ctx, ""); return err },
		func() error { _, err := c.Logs(ctx, "", client.LogQuery{}); return err },
		func() error { return c.DeleteImage(ctx, "") },
		func() error { _, err := c.Operation(ctx, ""); return err },
	} {
		if err := call(); !fault.Is(err, fault.Invalid) || err.Error() != "the name is empty" {
			t.Errorf("got %v", err)
		}
	}
	if asked := w.verbs.took(); asked != "" {
		t.Errorf("the verbs were asked %s", asked)
	}
}

// TestASlashNamesNothing is about the one selector that the standard library's mux takes for a path's
// end. No name has it, and what it leads to is refused.
func TestASlashNamesNothing(t *testing.T) {
	w := newWorld(t)
	for _, call := range []func() error{
		func() error { _, err := w.client.VM(t.Context(), "/"); return err },
		func() error { _, err := w.client.DeleteVM(t.Context(), "/", api.DeleteVM{Force: true}); return err },
		func() error { _, err := w.client.StartVM(t.Context(), "/"); return err },
	} {
		if err := call(); !fault.Is(err, fault.NotFound) {
			t.Errorf("got %v", err)
		}
	}
	if asked := w.verbs.took(); asked != "" {
		t.Errorf("the verbs were asked %s", asked)
	}
}

// TestBadRequestsAreFaults sends what no client of ours would.
func TestBadRequestsAreFaults(t *testing.T) {
	w := newWorld(t)
	big := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	for name, c := range map[string]struct {
		request, body string
		status        int
		code          fault.Code
		msg           string // a part of it
	}{
		"no JSON":            {"POST /v1/vms", "not json", 400, fault.Invalid, "invalid"},
		"no body":            {"POST /v1/vms", "", 400, fault.Invalid, "request body is required"},
		"not a kind of text": {"POST /v1/vms", "\xff\xfe{", 400, fault.Invalid, "invalid"},
		"unknown field":      {"POST /v1/vms", `{"name":"dev","vcpus":2}`, 400, fault.Invalid, "vcpus"},
		"wrong type":         {"POST /v1/vms", `{"vcpu":"two"}`, 400, fault.Invalid, "vcpu"},
		"missing field":      {"POST /v1/images/pull", `{}`, 400, fault.Invalid, "name"},
		"fraction of bytes":  {"POST /v1/vms", `{"memory":1.5}`, 400, fault.Invalid, "memory"},
		"beyond 64 bits":     {"POST /v1/vms", `{"memory":18446744073709551616}`, 400, fault.Invalid, "memory"},
		"body too large":     {"POST /v1/vms", big, 400, fault.Invalid, "too large"},
		"long and wrong":     {"POST /v1/vms", `{"vcpu":"` + strings.Repeat("x", 100_000) + `"}`, 400, fault.Invalid, "vcpu"},
		"long and unknown":   {"POST /v1/vms", `{"` + strings.Repeat("x", 100_000) + `":1}`, 400, fault.Invalid, "unexpected"},
		"bad query":          {"DELETE /v1/vms/dev?force=perhaps", "", 400, fault.Invalid, "force"},
		"no such route":      {"GET /v1/nothing", "", 404, fault.NotFound, "there is no GET /v1/nothing"},
		"no such version":    {"GET /v2/vms", "", 404, fault.NotFound, "there is no GET /v2/vms"},
		"no such method":     {"PUT /v1/vms/dev", "", 404, fault.NotFound, "there is no PUT /v1/vms/dev"},
		"no such log":        {"GET /v1/vms/dev/logs?source=passwd", "", 400, fault.Invalid, "there is no such log"},
		"dial to no port":    {"GET /v1/vms/dev/dial?port=ssh", "", 400, fault.Invalid, "the port is not a number"},
		"ssh as it is":       {"GET /v1/vms/dev/ssh", "", 400, fault.Invalid, "does not ask for the upgrade to banger-descriptor"},
		"dial as it is":      {"GET /v1/vms/dev/dial?port=22", "", 400, fault.Invalid, "does not ask for the upgrade"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := w.raw(fmt.Sprintf("%s HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", c.request, len(c.body), c.body))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			var f fault.Error
			if err := json.NewDecoder(res.Body).Decode(&f); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != c.status || f.Code != c.code || !strings.Contains(f.Msg, c.msg) || f.Hint == "" {
				t.Errorf("answered %d %+v", res.StatusCode, f)
			}
			if kind := res.Header.Get("Content-Type"); kind != "application/problem+json" {
				t.Errorf("as %s", kind)
			}
			if len(f.Error()) > 500 {
				t.Errorf("the fault repeats %d bytes of what it refuses", len(f.Error()))
			}
		})
	}
	if asked := w.verbs.took(); strings.Contains(asked, "create") || strings.Contains(asked, "delete") || strings.Contains(asked, "dial") {
		t.Errorf("the verbs were asked %s", asked)
	}
}

// TestAFloodOfHeadersIsCutOff holds that the server bounds what it reads before it knows what is asked.
func TestAFloodOfHeadersIsCutOff(t *testing.T) {
	w := newWorld(t)
	conn := w.connect()
	_, _ = io.WriteString(conn, "GET /v1/vms HTTP/1.1\r\nHost: b\r\n") // it may be cut off while we write
	line := "X-Flood: " + strings.Repeat("x", 1000) + "\r\n"
	for range 2000 {
		if _, err := io.WriteString(conn, line); err != nil {
			break
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %s", res.Status)
	}
	if _, err := w.client.VMs(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestAPanicIsAFault holds that a fault of ours ends one request, is told, and is logged with its place.
func TestAPanicIsAFault(t *testing.T) {
	w := newWorld(t)
	w.verbs.panics = true
	_, err := w.client.VMs(t.Context())
	f := fault.From(err)
	if f.Code != fault.Internal || f.Msg != "the daemon hit a fault of its own" || len(f.Logs) != 1 || f.Logs[0] != w.layout.DaemonLog() {
		t.Errorf("got %+v", f)
	}
	w.verbs.panics = false
	if _, err := w.client.VMs(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	log := w.logged()
	for _, want := range []string{`"msg":"panic"`, `"path":"/v1/vms"`, "of purpose", "world_test.go"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not have %s:\n%s", want, log)
		}
	}
}

// TestAPanicOnTheWayBreaksTheAnswerOff holds that half an answer does not pass for a whole one.
func TestAPanicOnTheWayBreaksTheAnswerOff(t *testing.T) {
	w := newWorld(t)
	w.verbs.panics = true
	id := w.verbs.begin(vm.Caller{UID: os.Getuid()}, lifecycle.KindCreate, "dev").Snapshot().ID
	conn := w.raw("GET /v1/operations/" + string(id) + "/events HTTP/1.1\r\nHost: b\r\n\r\n")
	text := drainText(t, conn)
	if !strings.Contains(text, `"name":"dev"`) || strings.HasSuffix(text, "\r\n0\r\n\r\n") || strings.Contains(text, "a fault of its own") {
		t.Errorf("answered %q", text)
	}
	if log := w.logged(); !strings.Contains(log, "on the way") {
		t.Error(log)
	}
}
