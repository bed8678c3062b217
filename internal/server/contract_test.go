package server_test

import (
	"encoding/json"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/cli/exit"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/op"
	"banger/internal/server"
	"banger/internal/vm"
)

// TestEveryRoute calls each method of the client and compares what the verbs were asked and what came
// back. A route that the description has and no call took is a failure too.
func TestEveryRoute(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.client, t.Context()
	me := os.Getuid()
	begun := func(kind, name string) op.Operation {
		return op.Operation{Kind: kind, Name: name, Owner: me, State: op.Underway}
	}
	shown := api.VM{
		ID: "1f0c6a2b9d3e", Name: "dev", Labels: map[string]string{"a": "b"}, Arch: "amd64", Image: machine().Image, Spec: machine().Spec,
		Desired: vm.Running, State: vm.Running, HostKey: "ssh-ed25519 AAAA", PID: 42, Dir: w.layout.VM("1f0c6a2b9d3e"),
		Logs:    api.Logs{Console: w.layout.ConsoleLog("1f0c6a2b9d3e"), Firecracker: w.layout.FirecrackerLog("1f0c6a2b9d3e")},
		Created: machine().Created, Timezone: "Asia/Tokyo", Locale: "ja_JP.UTF-8", Restart: "always",
		Pending: []string{"vcpu"}, Settings: map[string]string{"colour": "red", "ports": "8080:80,9090:90", "egress": "list", "allow": "example.com"},
		Policy: &api.Policy{NAT: true, Egress: network.EgressList, Allow: []string{"example.com"}},
	}
	trashed := api.Trashed{VM: shown, Deleted: deleted, Expires: deleted.Add(time.Hour)}
	trashed.Dir = w.layout.Trashed("1f0c6a2b9d3e")
	short := shown
	short.Arch, short.Desired, short.MAC, short.HostKey, short.Keys, short.PID, short.Dir = "", "", "", "", nil, 0, ""
	short.Logs, short.Created, short.Timezone, short.Locale, short.Restart, short.Settings, short.Policy = api.Logs{}, time.Time{}, "", "", "", nil, nil
	brief := manifest()
	brief.Packages = nil
	spec := machine().Spec
	for _, r := range []struct {
		call func() (any, error)
		asks string
		want any
	}{
		{func() (any, error) {
			return c.CreateVM(ctx, api.CreateVM{
				Name: "dev", Image: "debian:12", Labels: map[string]string{"a": "b"}, VCPU: spec.VCPU, Memory: spec.Memory,
				RootDisk: spec.RootDisk, WorkDisk: spec.WorkDisk, AuthorizedKeys: []string{"k"}, Timezone: "Europe/Rome", Locale: "C.UTF-8", Restart: "always",
			})
		}, `create dev debian:12 map[a:b] {VCPU:2 Memory:1073741824 RootDisk:2147483648 WorkDisk:3221225472} ["k"] Europe/Rome C.UTF-8 always`, begun(lifecycle.KindCreate, "dev")},
		{func() (any, error) { return c.VMs(ctx) }, "list", []api.VM{shown}},
		{func() (any, error) { return c.BriefVMs(ctx) }, "list", []api.VM{short}},
		{func() (any, error) { return c.VM(ctx, "dev") }, `find "dev"`, shown},
		{func() (any, error) { return c.StartVM(ctx, "dev") }, `start "dev"`, begun(lifecycle.KindStart, "dev")},
		{func() (any, error) { return c.StopVM(ctx, "dev", api.StopVM{}) }, `stop "dev" 0s`, begun(lifecycle.KindStop, "dev")},
		{func() (any, error) { return c.StopVM(ctx, "dev", api.StopVM{Timeout: time.Minute}) }, `stop "dev" 1m0s`, begun(lifecycle.KindStop, "dev")},
		{func() (any, error) { return c.KillVM(ctx, "dev") }, `kill "dev"`, begun(lifecycle.KindKill, "dev")},
		{func() (any, error) { return c.DeleteVM(ctx, "dev", api.DeleteVM{Force: true}) }, `delete "dev" true`, begun(lifecycle.KindDelete, "dev")},
		{func() (any, error) { return c.DeleteVM(ctx, "dev", api.DeleteVM{}) }, `delete "dev" false`, begun(lifecycle.KindDelete, "dev")},
		{func() (any, error) {
			return c.Stats(ctx, client.StatsQuery{VMs: []string{"dev", "test"}, Labels: []string{"a=b"}, Shared: true})
		}, `stats ["dev" "test"] {[{a b true}]} true`, []vm.Stats{{ID: machine().ID, Name: "dev", Host: &vm.Usage{RSS: 7}}}},
		{func() (any, error) {
			return c.SetVM(ctx, "dev", api.SetVM{Settings: map[string]string{"vcpu": "2"}, Labels: map[string]*string{"a": nil}})
		}, `set "dev" map[vcpu:2] 1`, begun(lifecycle.KindSet, "dev")},
		{func() (any, error) {
			return c.PlanVM(ctx, "dev", api.SetVM{Settings: map[string]string{"vcpu": "2"}, Labels: map[string]*string{"a": new("b")}})
		}, `plan "dev" map[vcpu:2] b`, []api.Altered{{Key: "vcpu", From: "1", To: "2", Restart: "why"}}},
		{func() (any, error) { return c.Findings(ctx) }, "repair false", []api.Finding{finding(false)}},
		{func() (any, error) { return c.Repair(ctx) }, "repair true", []api.Finding{finding(true)}},
		{func() (any, error) { return c.Usage(ctx) }, "totals", []api.StateUsage{{Category: "images", Count: 2, Allocated: 5, Shared: 3, Reclaimable: 1, Unused: []string{"old"}}}},
		{func() (any, error) { return c.Prune(ctx, api.Prune{Trash: true}) }, "prune false true", []api.Pruned{
			{Category: "golden", Name: "a", Why: "why", Size: 7, Done: true}, {Category: "trash", Name: "b", Why: "why", Size: 8, Error: fault.New(fault.Internal, "no")},
		}},
		{func() (any, error) { return c.Prune(ctx, api.Prune{DryRun: true}) }, "prune true false", []api.Pruned{
			{Category: "golden", Name: "a", Why: "why", Size: 7}, {Category: "trash", Name: "b", Why: "why", Size: 8, Error: fault.New(fault.Internal, "no")},
		}},
		{func() (any, error) { return c.DNS(ctx) }, "dns", named()},
		{func() (any, error) { return c.SetUpDNS(ctx, api.DNSRequest{}) }, "set up dns false", api.DNSChange{Steps: []string{"tell it"}, Done: true, DNS: named()}},
		{func() (any, error) { return c.UndoDNS(ctx, api.DNSRequest{DryRun: true}) }, "undo dns true", api.DNSChange{}},
		{func() (any, error) {
			return c.Explain(ctx, "dev", api.Explain{Destination: "example.com", Probe: true})
		}, "explain dev example.com true", api.Explanation{VM: "dev", Destination: "example.com", Explanation: network.Explanation{Passes: true}}},
		{func() (any, error) { return c.UninstallNetwork(ctx, api.UninstallNetwork{DryRun: true}) }, "uninstall network true", []string{}},
		{func() (any, error) { return c.AdoptVM(ctx, api.AdoptVM{VM: "dev", Name: "new"}) }, `adopt "dev" "new"`, begun(lifecycle.KindAdopt, "dev")},
		{func() (any, error) { return c.ForkVM(ctx, "dev", api.ForkVM{Name: "new", Count: 3}) }, `fork "dev" "new" 3`, begun(lifecycle.KindFork, "dev")},
		{func() (any, error) { return c.Checkpoints(ctx, "dev") }, `checkpoints "dev"`, []api.Checkpoint{
			{Name: "a", Created: deleted, Spec: spec, Size: 7}, {Name: "b", Error: fault.New(fault.Corrupt, "no")},
		}},
		{func() (any, error) { return c.MakeCheckpoint(ctx, "dev", api.MakeCheckpoint{Name: "a"}) }, `checkpoint "dev" "a"`, begun(lifecycle.KindCheckpoint, "dev")},
		{func() (any, error) { return c.RestoreCheckpoint(ctx, "dev", "a") }, `rollback "dev" "a"`, begun(lifecycle.KindRollback, "dev")},
		{func() (any, error) { return nil, c.DeleteCheckpoint(ctx, "dev", "a") }, `delete checkpoint "dev" "a"`, nil},
		{func() (any, error) { return c.Trash(ctx) }, "trash", []api.Trashed{trashed}},
		{func() (any, error) { return c.RestoreVM(ctx, "dev", api.RestoreVM{Name: "new"}) }, `restore "dev" "new"`, begun(lifecycle.KindRestore, "dev")},
		{func() (any, error) { return c.DestroyVM(ctx, "dev") }, `destroy "dev"`, begun(lifecycle.KindDestroy, "dev")},
		{func() (any, error) { return c.PingVM(ctx, "dev") }, `ping "dev"`, api.Ping{
			RoundTrip: time.Millisecond, Agent: "1.0", Kernel: "6.1", OS: "Debian", Uptime: time.Minute, AgentRSS: 7,
		}},
		{func() (any, error) { return c.Ports(ctx, "dev") }, "find \"dev\"\nlisteners \"1f0c6a2b9d3e\"", api.Ports{
			Doors: []api.Door{
				{Spec: "8080:80", Address: "127.0.0.1", HostPort: 8080, GuestPort: 80, State: api.DoorOpen},
				{Spec: "9090:90", Address: "127.0.0.1", HostPort: 9090, GuestPort: 90, State: api.DoorFailed, Error: fault.New(fault.InUse, "taken")},
			},
			Listening: []api.GuestListener{
				{Address: "::", Port: 80, PID: 7, Program: "httpd", Door: "127.0.0.1:8080"}, {Address: "127.0.0.1", Port: 90},
			},
			More: 2,
		}},
		{func() (any, error) { return c.Images(ctx) }, "images", []api.Image{{Manifest: brief, UsedBy: []string{"dev"}}}},
		{func() (any, error) { return c.Image(ctx, "debian:12") }, `image "debian:12"`, api.Image{Manifest: manifest(), UsedBy: []string{"dev"}}},
		{func() (any, error) { return c.PullImage(ctx, api.PullImage{Name: "debian:13"}) }, `pull "debian:13"`, begun(lifecycle.KindPull, "debian:13")},
		{func() (any, error) { return c.WarmImage(ctx, "debian:12", api.WarmImage{VCPU: 4, Memory: 512}) }, `warm "debian:12" 4 512`, begun(lifecycle.KindWarm, "debian:12")},
		{func() (any, error) { return nil, c.DeleteImage(ctx, "debian:12") }, `delete image "debian:12"`, nil},
		{func() (any, error) { return c.Status(ctx) }, "status", api.Status{PID: 7, Build: buildinfo.Info{Version: "1"}, VMs: map[string]int{"running": 1}}},
		{func() (any, error) { return c.Metrics(ctx) }, "metrics", "banger_vms 1\n"},
		{func() (any, error) { return c.Doctor(ctx) }, "doctor", []api.Check{{Name: "KVM", Result: api.CheckFailed, Detail: "none", Fix: "get one"}}},
		{func() (any, error) { return c.Upgrade(ctx) }, "upgrade", api.Upgrade{From: buildinfo.Info{Stamp: 1}, To: buildinfo.Info{Stamp: 2}, Done: true}},
		{func() (any, error) { return c.Version(ctx) }, "", buildinfo.Current()},
	} {
		got, err := r.call()
		if err != nil {
			t.Errorf("%s: %v", r.asks, err)
		}
		if asks := w.verbs.took(); asks != r.asks {
			t.Errorf("the verbs were asked\n%s\nwant\n%s", asks, r.asks)
		}
		if diff := cmp.Diff(r.want, got, cmpopts.IgnoreFields(op.Operation{}, "ID", "Created"), cmpopts.IgnoreFields(api.Status{}, "Operations"), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", r.asks, diff)
		}
	}
	routesOfOperations(t, w)

	described := describedRoutes(t)
	asked := w.asked()
	for _, route := range described {
		if !slices.Contains(asked, route) {
			t.Errorf("no method of the client asks %s", route)
		}
	}
}

func routesOfOperations(t *testing.T, w *world) {
	t.Helper()
	c, ctx := w.client, t.Context()
	mine := w.verbs.begin(vm.Caller{UID: os.Getuid()}, lifecycle.KindCreate, "mine")
	id := mine.Snapshot().ID
	got, err := c.Operation(ctx, id)
	if err != nil || got.ID != id || got.Name != "mine" {
		t.Errorf("operation: %+v, %v", got, err)
	}
	all, err := c.Operations(ctx)
	if err != nil || !slices.ContainsFunc(all, func(o op.Operation) bool { return o.ID == id }) {
		t.Errorf("operations: %+v, %v", all, err)
	}
	st, err := c.Status(ctx)
	if err != nil || w.verbs.took() != "status" || !slices.ContainsFunc(st.Operations, func(o op.Operation) bool { return o.ID == id }) {
		t.Errorf("status: %+v, %v", st, err)
	}
	if _, err := c.CancelOperation(ctx, id); err != nil || w.verbs.took() != "cancel mine" {
		t.Errorf("cancel: %v", err)
	}
	mine.Finish(nil)
	if _, err := c.CancelOperation(ctx, id); !fault.Is(err, fault.WrongState) {
		t.Errorf("cancel of an ended operation: %v", err)
	}
	if _, err := c.Operation(ctx, "op-none"); !fault.Is(err, fault.NotFound) {
		t.Errorf("operation that is none: %v", err)
	}
}

// describedRoutes are those of the OpenAPI description, as the mux writes them.
func describedRoutes(t *testing.T) []string {
	t.Helper()
	text, err := server.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	var routes []string
	for path, methods := range d.Paths {
		for method := range methods {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	if len(routes) < 15 {
		t.Fatalf("only %v are described", routes)
	}
	return routes
}

// TestFaultsCross holds that a fault arrives as it was, of every code and on every kind of route, and
// so ends the command with the same status.
func TestFaultsCross(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.client, t.Context()
	ways := map[string]func() error{
		"answer":    func() error { _, err := c.VM(ctx, "dev"); return err },
		"operation": func() error { _, err := c.StartVM(ctx, "dev"); return err },
		"no answer": func() error { return c.DeleteImage(ctx, "x") },
		"log":       func() error { _, err := c.Logs(ctx, "dev", client.LogQuery{Source: "console"}); return err },
		"dial":      func() error { _, err := c.Dial(ctx, "dev", 22); return err },
		"ssh":       func() error { _, err := c.SSH(ctx, "dev"); return err },
		"import": func() error {
			_, err := c.ImportImage(ctx, api.ImportImage{Name: "x"}, strings.NewReader("tar"))
			return err
		},
	}
	for _, code := range fault.Codes() {
		sent := fault.New(code, "wörds with \x1b[31m and \"quotes\"\nand lines").WithOp("start VM", "dev/../x").WithHint("do `this`").
			WithLogs("/a/b.log", "/c").WithDetail("one\ntwo")
		w.verbs.fail(sent)
		for way, call := range ways {
			err := call()
			got := fault.From(err)
			if diff := cmp.Diff(sent, got, cmpopts.IgnoreFields(fault.Error{}, "Err")); diff != "" {
				t.Errorf("%s by %s: %s", code, way, diff)
			}
			if exit.Of(err) != exit.Of(sent) {
				t.Errorf("%s by %s: exit status %d, want %d", code, way, exit.Of(err), exit.Of(sent))
			}
		}
	}
}

// TestAPlainErrorIsAFaultOfOurs holds that an error without a code crosses too.
func TestAPlainErrorIsAFaultOfOurs(t *testing.T) {
	w := newWorld(t)
	w.verbs.fail(os.ErrDeadlineExceeded)
	_, err := w.client.VMs(t.Context())
	if !fault.Is(err, fault.Internal) || err.Error() != "i/o timeout" {
		t.Errorf("got %v", err)
	}
}

// TestOthersOperationsAreNotSeen asks as somebody else: root as another uid, anybody else as himself.
func TestOthersOperationsAreNotSeen(t *testing.T) {
	w := newWorld(t)
	stranger := os.Getuid()
	if stranger == 0 {
		stranger = 12345
	}
	id := w.verbs.begin(vm.Caller{UID: stranger + 1}, lifecycle.KindCreate, "theirs").Snapshot().ID
	for request, want := range map[string]string{
		"GET /v1/status":                                "200 OK",
		"GET /v1/operations":                            "200 OK",
		"GET /v1/operations/" + string(id):              "404 Not Found",
		"GET /v1/operations/" + string(id) + "/events":  "404 Not Found",
		"POST /v1/operations/" + string(id) + "/cancel": "404 Not Found",
	} {
		conn := w.connectAs(stranger)
		if _, err := io.WriteString(conn, request+" HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer := drainText(t, conn)
		if !strings.HasPrefix(answer, "HTTP/1.1 "+want) || strings.Contains(answer, "theirs") {
			t.Errorf("%s: %s", request, answer)
		}
	}
	if asked := w.verbs.took(); asked != "status" {
		t.Errorf("a stranger did: %s", asked)
	}
	conn := w.connectAs(stranger)
	if _, err := io.WriteString(conn, "GET /v1/vms HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	drainText(t, conn)
	if w.verbs.caller.UID != stranger {
		t.Errorf("the caller is %+v, not %d", w.verbs.caller, stranger)
	}
}

func TestAListOfOperationsIsBounded(t *testing.T) {
	w := newWorld(t)
	for i := range 150 {
		w.verbs.begin(vm.Caller{UID: os.Getuid()}, lifecycle.KindPull, strconv.Itoa(i))
	}
	all, err := w.client.Operations(t.Context())
	if err != nil || len(all) != 100 || !slices.IsSortedFunc(all, func(a, b op.Operation) int { return b.Created.Compare(a.Created) }) {
		t.Errorf("%d operations, %v", len(all), err)
	}
}

// TestTheCallerIsWhoTheKernelSays holds that the owner is the peer's uid, whatever the request says.
func TestTheCallerIsWhoTheKernelSays(t *testing.T) {
	w := newWorld(t)
	conn := w.raw("GET /v1/vms HTTP/1.1\r\nHost: b\r\nX-Remote-User: root\r\nAuthorization: Basic cm9vdDo=\r\nConnection: close\r\n\r\n")
	if answer := drainText(t, conn); !strings.HasPrefix(answer, "HTTP/1.1 200") {
		t.Fatal(answer)
	}
	want := vm.Caller{UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid()}
	if diff := cmp.Diff(want, w.verbs.caller); diff != "" {
		t.Error(diff)
	}
}

func TestSecretsStayBehind(t *testing.T) {
	w := newWorld(t)
	conn := w.raw("GET /v1/vms/dev HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
	if answer := drainText(t, conn); strings.Contains(answer, "SECRET") || !strings.Contains(answer, `"name":"dev"`) {
		t.Error(answer)
	}
}

// TestImagesInAnswersKeepTheirShape holds that an image's fields stand beside used_by, where clients
// read them.
func TestImagesInAnswersKeepTheirShape(t *testing.T) {
	text, err := json.Marshal(api.Image{Manifest: image.Manifest{ID: "x"}, UsedBy: []string{"dev"}})
	if err != nil || !strings.HasPrefix(string(text), `{"id":"x"`) {
		t.Errorf("%s, %v", text, err)
	}
}

func finding(done bool) api.Finding {
	return api.Finding{Kind: "orphan", Subject: "tap x", Why: "nobody's", Repair: "remove it", Done: done}
}
