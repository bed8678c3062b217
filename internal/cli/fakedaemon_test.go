package cli_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/fdpass"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/vm"
)

// bangerd is what a root's banger starts: the fake daemon as a program.
func bangerd() int {
	if os.Getenv("TEST_DYING") != "" {
		fmt.Fprintln(os.Stderr, "no KVM here")
		return 3
	}
	stop, err := serve(os.Getenv("BANGER_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	// Nobody but this program would end it: a script's commands are over in seconds.
	<-time.After(20 * time.Second)
	return 0
}

// fake is a daemon that does everything at once and in memory.
type fake struct {
	mu     sync.Mutex
	guest  guest
	build  buildinfo.Info
	vms    []api.VM
	images []api.Image
	ops    []op.Operation
	news   []event.Event
	busy   int // operations that take a while
	most   int // of them at once
	looks  int // at what VMs use
	pruned bool
	dns    api.DNS
	clean  bool // nothing is left of the network
	dying  bool // the guest that was last logged in to
}

func serve(socket string) (stop func(), err error) {
	g, err := newGuest()
	if err != nil {
		return nil, err
	}
	return newFake(g).serve(socket)
}

func (f *fake) serve(socket string) (stop func(), err error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: f.routes(), ReadHeaderTimeout: time.Second}
	go srv.Serve(l) //nolint:errcheck // ends with Close
	return func() { srv.Close() }, nil
}

func newFake(g guest) *fake {
	now := time.Now()
	debian := vm.ImageRef{ID: "a1b2c3d4e5f6", Name: "debian:12"}
	return &fake{
		news: []event.Event{
			{ID: 4, Time: now, Kind: event.Gap, Owner: event.Everyone, Reason: "what happened before is no longer kept"},
			{ID: 5, Time: now, Kind: event.DaemonStarted, Owner: event.Everyone},
			{ID: 6, Time: now, Kind: "vm.crashed", VM: "1f01cd23ef45", Name: "old", Reason: "said \x1b[2J"},
			{ID: 7, Time: now, Kind: event.VMRenamed, VM: "1f0c6a2b9d3e", Name: "dev", Was: "test"},
			{ID: 8, Time: now, Kind: event.VMSet, VM: "1f0c6a2b9d3e", Name: "dev", Changed: []string{"labels", "memory"}},
		},
		guest: g,
		build: buildinfo.Info{Version: "1.0.0", Commit: "abcdef", Stamp: 100},
		vms: []api.VM{
			{
				ID: "1f0c6a2b9d3e", Name: "dev", Owner: os.Geteuid(), Image: debian, State: vm.Running, Address: "172.30.0.2", Started: now.Add(-3 * time.Hour),
				Labels: map[string]string{"project": "website"}, Spec: vm.Spec{VCPU: 2, Memory: 2 * vm.GiB},
			},
			{
				ID: "1f01cd23ef45", Name: "old", Owner: os.Geteuid(), Image: debian, State: vm.Crashed, Reason: "said \x1b[2J", Address: "172.30.0.3",
				Spec: vm.Spec{VCPU: 1, Memory: 512 * vm.MiB, RootDisk: 4 * vm.GiB, WorkDisk: 8 * vm.GiB}, Dir: "/var/lib/banger/vms/1f01cd23ef45",
			},
		},
		images: []api.Image{{UsedBy: []string{"dev", "old"}, Manifest: image.Manifest{
			ID: debian.ID, Name: debian.Name, OS: "Debian GNU/Linux 12 (bookworm)", Arch: "amd64", Created: now.Add(-75 * time.Hour),
			Kernel: image.Kernel{Version: "6.1.0"}, Root: image.Disk{Size: vm.GiB, Allocated: 400 * vm.MiB, FSType: "ext4"},
			Services: []image.Service{{Name: "ssh", Port: 22}},
		}}},
	}
}

func (f *fake) find(selector string) (*api.VM, error) {
	nouns := make([]vm.VM, len(f.vms))
	for i, v := range f.vms {
		nouns[i] = vm.VM{ID: v.ID, Name: v.Name}
	}
	found, err := vm.Select(nouns, selector)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(f.vms, func(v api.VM) bool { return v.ID == found.ID })
	return &f.vms[i], nil
}

// begin records an operation whose stages are over already, unless it is to fail or to hang.
func (f *fake) begin(kind, id, name string, stages ...op.Stage) op.Operation {
	now := time.Now()
	o := op.Operation{ID: op.NewID(), Kind: kind, Subject: id, Name: name, State: op.Done, Created: now, Stages: stages}
	for i := range o.Stages {
		o.Stages[i].Started = now
		o.Ended = o.Ended.Add(o.Stages[i].Duration)
	}
	o.Ended = now.Add(o.Ended.Sub(time.Time{}) + 8*time.Millisecond)
	f.ops = append(f.ops, o)
	f.tell(event.OfOperation("", o)...)
	return o
}

// tell adds events, in the order of their ids.
func (f *fake) tell(news ...event.Event) {
	for _, e := range news {
		e.ID, e.Time = int64(len(f.news)+4), time.Now()
		f.news = append(f.news, e)
	}
}

func done(name string, ms int) op.Stage {
	return op.Stage{Name: name, Done: true, Duration: time.Duration(ms) * time.Millisecond}
}

func (f *fake) create(r api.CreateVM) (op.Operation, error) {
	if r.Image != "" && r.Image != "debian:12" {
		_, err := image.Select(nil, r.Image)
		return op.Operation{}, err
	}
	// Not find: a name such as "b" may be the prefix of another VM's id.
	if slices.ContainsFunc(f.vms, func(v api.VM) bool { return v.Name == r.Name }) {
		return op.Operation{}, fault.New(fault.AlreadyExists, "the name is taken").WithOp("create VM", r.Name).WithHint("choose another")
	}
	v := api.VM{
		ID: vm.NewID(), Name: r.Name, Owner: os.Geteuid(), State: vm.Running, Labels: r.Labels, Keys: r.AuthorizedKeys, HostKey: f.guest.hostKey,
		Image: vm.ImageRef{ID: f.images[0].ID, Name: f.images[0].Name}, Spec: vm.Spec{VCPU: max(r.VCPU, 1), Memory: r.Memory},
		Settings: r.Settings, Policy: policyOf(r.Settings),
	}
	switch r.Name {
	case "impostor":
		v.HostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDCx6b9Hu9RY8qDpEuHTeWSxg9iUhcOdZYWMaQvmGNN other"
	case "broken":
		boot := op.Stage{Name: "boot", Done: true, Duration: time.Second, Outcome: op.Failed, Error: "the guest ended\x1b[2J"}
		o := f.begin("vm.create", string(v.ID), v.Name, done("disks", 82), boot)
		o.State, o.Ended = op.Failed, o.Created
		o.Error = fault.New(fault.GuestFailed, "the guest ended before it was ready").WithOp("create VM", "broken").
			WithDetail("Kernel panic\x1b[2J\nno init\n").WithLogs("/var/lib/banger/kept/console.log").WithHint("see the console's last lines").InStage("boot")
		f.ops[len(f.ops)-1] = o
		return o, nil
	case "paused":
		v.State, v.Reason = vm.Paused, "the disk is full"
	case "large":
		f.vms = append(f.vms, v)
		o := f.begin("vm.create", string(v.ID), v.Name, done("disks", 82))
		o.Warnings = []string{"if all VMs filled\x1b[2J their disks …"}
		f.ops[len(f.ops)-1] = o
		return o, nil
	case "slow":
		o := f.begin("vm.create", string(v.ID), v.Name, done("disks", 82), op.Stage{Name: "boot"})
		o.State, o.Ended = op.Underway, time.Time{}
		f.ops[len(f.ops)-1] = o
		return o, nil
	}
	f.vms = append(f.vms, v)
	return f.begin("vm.create", string(v.ID), v.Name, done("disks", 82), done("boot", 1150)), nil
}

func (f *fake) power(verb, selector string, force bool) (op.Operation, error) {
	v, err := f.find(selector)
	if err != nil {
		return op.Operation{}, err
	}
	refuse := func(format string, args ...any) (op.Operation, error) {
		return op.Operation{}, fault.New(fault.WrongState, format, args...).WithOp(verb+" VM", v.Name).WithHint("give --force")
	}
	switch {
	case verb == "start" && v.State == vm.Running:
		return refuse("it is running already")
	case verb == "delete" && v.State == vm.Running && !force:
		return refuse("it is running")
	case (verb == "stop" || verb == "kill") && v.State != vm.Running:
		return refuse("it is %s already", v.State)
	case v.Name == "stuck":
		o := f.begin("vm."+verb, string(v.ID), v.Name, op.Stage{Name: "shutdown"})
		o.State, o.Ended = op.Underway, time.Time{}
		f.ops[len(f.ops)-1] = o
		return o, nil
	case strings.HasPrefix(v.Name, "busy"):
		o := f.begin("vm."+verb, string(v.ID), v.Name)
		i := len(f.ops) - 1
		f.ops[i].State, f.ops[i].Ended = op.Underway, time.Time{}
		f.busy++
		f.most = max(f.most, f.busy)
		time.AfterFunc(50*time.Millisecond, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.busy--
			f.ops[i].State, f.ops[i].Ended = op.Done, time.Now()
		})
		return o, nil
	case v.Name == "late":
		o := f.begin("vm."+verb, string(v.ID), v.Name, op.Stage{Name: "shutdown"})
		o.State, o.Error = op.Failed, fault.New(fault.Timeout, "it took too long").WithOp(verb+" VM", v.Name).WithHint("try again")
		f.ops[len(f.ops)-1] = o
		return o, nil
	case verb == "start":
		v.State, v.Reason, v.Started = vm.Running, "", time.Now()
	default:
		v.State = vm.Stopped
	}
	o := f.begin("vm."+verb, string(v.ID), v.Name, done("shutdown", 40))
	if verb == "delete" {
		f.vms = slices.DeleteFunc(f.vms, func(x api.VM) bool { return x.ID == v.ID })
	}
	return o, nil
}

func (f *fake) operation(id string) (*op.Operation, error) {
	i := slices.IndexFunc(f.ops, func(o op.Operation) bool { return string(o.ID) == id })
	if i < 0 {
		return nil, fault.New(fault.NotFound, "there is no such operation").WithOp("find operation", id)
	}
	return &f.ops[i], nil
}

func (f *fake) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			answer, err := h(r)
			reply(w, answer, err)
		})
	}
	handle("GET /v1/version", func(*http.Request) (any, error) { return f.build, nil })
	handle("POST /v1/daemon/upgrade", func(*http.Request) (any, error) {
		from := f.build
		f.build = buildinfo.Info{Version: "2.0.0", Commit: "c0ffee", Stamp: 200}
		return api.Upgrade{From: from, To: f.build, Done: true}, nil
	})
	handle("GET /v1/status", func(*http.Request) (any, error) {
		counts := map[string]int{}
		for _, v := range f.vms {
			counts[string(v.State)]++
		}
		return api.Status{Build: f.build, PID: 7, VMs: counts, Images: len(f.images), Firecracker: "1.12.1"}, nil
	})
	handle("GET /v1/doctor", func(*http.Request) (any, error) {
		return []api.Check{{Name: "KVM", Result: api.CheckOK, Detail: "usable, svm"}}, nil
	})
	handle("GET /v1/vms", func(*http.Request) (any, error) { return f.vms, nil })
	handle("GET /v1/stats", f.stats)
	handle("GET /v1/vms/{vm}", func(r *http.Request) (any, error) { return f.find(r.PathValue("vm")) })
	handle("POST /v1/vms", func(r *http.Request) (any, error) {
		var req api.CreateVM
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			return nil, err
		}
		return f.create(req)
	})
	for _, verb := range []string{"start", "stop", "kill"} {
		handle("POST /v1/vms/{vm}/"+verb, func(r *http.Request) (any, error) { return f.power(verb, r.PathValue("vm"), false) })
	}
	handle("PATCH /v1/vms/{vm}", f.set)
	f.snapshots(handle)
	f.ports(mux, handle)
	handle("GET /v1/repair", func(*http.Request) (any, error) { return findings(false), nil })
	handle("POST /v1/repair", func(*http.Request) (any, error) { return findings(true), nil })
	handle("GET /v1/dns", func(*http.Request) (any, error) { return f.dns, nil })
	handle("POST /v1/dns/setup", f.setUpDNS)
	handle("POST /v1/dns/undo", f.undoDNS)
	handle("GET /v1/system/df", func(*http.Request) (any, error) { return diskUsage(), nil })
	handle("POST /v1/system/prune", func(r *http.Request) (any, error) {
		var req api.Prune
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			return nil, err
		}
		return f.prune(req), nil
	})
	handle("POST /v1/vms/{vm}/network/explain", f.explain)
	handle("POST /v1/system/uninstall-network", f.uninstallNetwork)
	handle("POST /v1/repair/adopt", func(r *http.Request) (any, error) {
		var req api.AdoptVM
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			return nil, err
		}
		return f.begin("vm.adopt", string(f.vms[1].ID), f.vms[1].Name, done("directory", 3)), nil
	})
	handle("POST /v1/vms/{vm}/plan", f.plan)
	handle("DELETE /v1/vms/{vm}", func(r *http.Request) (any, error) {
		return f.power("delete", r.PathValue("vm"), r.URL.Query().Get("force") == "true")
	})
	handle("GET /v1/vms/{vm}/ping", func(r *http.Request) (any, error) {
		v, err := f.find(r.PathValue("vm"))
		if err != nil {
			return nil, err
		}
		if f.dying { // a hypervisor's end is known a moment after it
			f.dying, v.State, v.Reason = false, vm.Crashed, "said \x1b[2J"
			return nil, fault.New(fault.Unavailable, "the guest's agent does not answer")
		}
		return api.Ping{RoundTrip: 1234 * time.Microsecond, OS: "Debian GNU/Linux 12", Kernel: "6.1.0", Uptime: 3 * time.Minute, Agent: "2.0.0"}, nil
	})
	mux.HandleFunc("GET /v1/vms/{vm}/logs", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("source") == "network" && r.PathValue("vm") == "agent" {
			fmt.Fprintln(w, `{"time":"2026-01-02T03:04:05Z","protocol":"tcp","destination":"203.0.113.7","port":22,"why":"egress is none"}`)
		}
		if source := q.Get("source"); source != "console" {
			fmt.Fprintf(w, "%s tail %s since %s\x1b[2J\n", source, q.Get("tail"), q.Get("since"))
			return
		}
		fmt.Fprint(w, "Debian GNU/Linux 12\nlogin: \n")
	})
	mux.HandleFunc("GET /v1/vms/{vm}/ssh", f.ssh)
	handle("GET /v1/images", func(*http.Request) (any, error) { return f.images, nil })
	handle("GET /v1/images/{image}", func(r *http.Request) (any, error) {
		name := r.PathValue("image")
		i := slices.IndexFunc(f.images, func(m api.Image) bool { return m.Name == name || m.ID == name })
		if i < 0 {
			_, err := image.Select(nil, name)
			return nil, err
		}
		return f.images[i], nil
	})
	handle("POST /v1/images/pull", func(r *http.Request) (any, error) {
		var req api.PullImage
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			return nil, err
		}
		return f.begin("image.pull", f.images[0].ID, req.Name, done("bootstrap", 61200)), nil
	})
	handle("POST /v1/images/{image}/warm", func(r *http.Request) (any, error) {
		var req api.WarmImage
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			return nil, err
		}
		name := r.PathValue("image")
		return f.begin("image.warm", name, name, done(fmt.Sprintf("snapshot of %d vCPUs, %s", req.VCPU, vm.FormatSize(req.Memory)), 900)), nil
	})
	mux.HandleFunc("POST /v1/images/import", f.importImage)
	handle("DELETE /v1/images/{image}", func(r *http.Request) (any, error) {
		if r.PathValue("image") == "rootfs" {
			return struct{}{}, nil
		}
		return nil, fault.New(fault.InUse, "VMs use it: dev, old").WithOp("delete image", r.PathValue("image")).WithHint("delete them first")
	})
	handle("GET /v1/operations", func(*http.Request) (any, error) {
		ops := slices.Clone(f.ops)
		slices.Reverse(ops)
		return ops, nil
	})
	handle("GET /v1/operations/{id}", func(r *http.Request) (any, error) { return f.operation(r.PathValue("id")) })
	handle("POST /v1/operations/{id}/cancel", func(r *http.Request) (any, error) {
		o, err := f.operation(r.PathValue("id"))
		if err == nil {
			o.State, o.Ended = op.Canceled, time.Now()
		}
		return o, err
	})
	mux.HandleFunc("GET /v1/operations/{id}/events", f.events)
	mux.HandleFunc("GET /v1/events", f.changes)
	return mux
}

func reply(w http.ResponseWriter, answer any, err error) {
	if err != nil {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(api.HTTPStatus(fault.CodeOf(err)))
		answer = fault.From(err)
	}
	_ = json.NewEncoder(w).Encode(answer) // a client that is gone needs no answer
}

// events sends the operation whenever it has changed, until it ends or the client goes.
func (f *fake) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for sent := ""; ; {
		f.mu.Lock()
		o, err := f.operation(r.PathValue("id"))
		if err != nil {
			f.mu.Unlock()
			reply(w, nil, err)
			return
		}
		if o.State == op.Underway && len(o.Stages) > 0 {
			o.Stages[len(o.Stages)-1].Detail = "followed"
		}
		body, _ := json.Marshal(o) //nolint:errchkjson // plain data
		ended := o.State.Ended()
		f.mu.Unlock()
		if string(body) != sent {
			sent = string(body)
			fmt.Fprintf(w, "event: operation\ndata: %s\n\n", body)
			_ = http.NewResponseController(w).Flush()
		}
		if ended {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// changes sends the news after an id, all when it is 0, until the client goes. The first time it breaks off at
// a daemon's start, as if another had come.
func (f *fake) changes(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	last := r.Header.Get("Last-Event-ID")
	since, _ := strconv.ParseInt(either(last, q.Get("since")), 10, 64)
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		f.mu.Lock()
		for _, e := range f.news {
			if e.ID <= since || q.Get("vm") != "" && e.Name != q.Get("vm") {
				continue
			}
			since = e.ID
			body, _ := json.Marshal(e) //nolint:errchkjson // plain data
			fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", e.ID, api.EventChange, body)
			if e.Kind == event.DaemonStarted && last == "" && q.Get("follow") != "false" {
				f.mu.Unlock()
				return
			}
		}
		f.mu.Unlock()
		_ = http.NewResponseController(w).Flush()
		if q.Get("follow") == "false" {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// importImage answers with an operation at once, reads the tree, and ends the operation.
func (f *fake) importImage(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f.mu.Lock()
	o := f.begin("image.import", "0badcafe0000", q.Get("name"), op.Stage{Name: "upload"})
	i := len(f.ops) - 1
	f.ops[i].State = op.Underway
	o.State = op.Underway
	f.mu.Unlock()
	_ = http.NewResponseController(w).EnableFullDuplex()
	reply(w, o, nil)
	_ = http.NewResponseController(w).Flush()

	var names []string
	var err error
	for tr := tar.NewReader(r.Body); err == nil; {
		var h *tar.Header
		if h, err = tr.Next(); err == nil {
			names = append(names, h.Name)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops[i].State, f.ops[i].Ended = op.Done, time.Now()
	if !errors.Is(err, io.EOF) {
		f.ops[i].State, f.ops[i].Error = op.Failed, fault.New(fault.Invalid, "the stream broke off")
		return
	}
	m := f.images[0]
	m.Name, m.Source, m.OS = o.Name, q.Get("source"), strings.Join(names, " ")
	f.images = append(f.images, m)
}

// ssh hands over a connection to the guest's SSH server.
func (f *fake) ssh(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	v, err := f.find(r.PathValue("vm"))
	if err != nil {
		f.mu.Unlock()
		reply(w, nil, err)
		return
	}
	keys := v.Keys
	f.mu.Unlock()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", api.Descriptor)
	_ = rw.Flush()
	here, there, err := pair()
	if err != nil {
		return
	}
	_ = fdpass.Send(conn.(*net.UnixConn), there)
	_ = there.Close()
	_ = f.guest.serve(here, keys, func() { // its client tells what went wrong
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dying = true
	})
}

// pair are the two ends of a connection.
func pair() (here net.Conn, there *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near := os.NewFile(uintptr(fds[0]), "near")
	defer near.Close()
	here, err = net.FileConn(near)
	return here, os.NewFile(uintptr(fds[1]), "far"), err
}
