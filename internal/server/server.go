// Package server serves /v1 over HTTP. It authenticates callers by the credentials that the kernel
// vouches for, turns requests into verbs, and faults into answers.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/op"
	"banger/internal/vm"
)

// Verbs are what requests turn into. *lifecycle.Manager has them.
type Verbs interface {
	Create(ctx context.Context, caller vm.Caller, r lifecycle.CreateRequest) (op.Operation, error)
	List(ctx context.Context, caller vm.Caller) ([]vm.VM, error)
	Find(ctx context.Context, caller vm.Caller, selector string) (vm.VM, error)
	Start(ctx context.Context, caller vm.Caller, selector string) (op.Operation, error)
	Stop(ctx context.Context, caller vm.Caller, selector string, timeout time.Duration) (op.Operation, error)
	Kill(ctx context.Context, caller vm.Caller, selector string) (op.Operation, error)
	Delete(ctx context.Context, caller vm.Caller, selector string, r lifecycle.DeleteRequest) (op.Operation, error)
	Stats(ctx context.Context, caller vm.Caller, r lifecycle.StatsRequest) ([]vm.Stats, error)
	Set(ctx context.Context, caller vm.Caller, selector string, r lifecycle.SetRequest) (op.Operation, error)
	PlanSet(ctx context.Context, caller vm.Caller, selector string, r lifecycle.SetRequest) ([]lifecycle.Altered, error)
	Repair(ctx context.Context, caller vm.Caller, mend bool) ([]lifecycle.Mended, error)
	Adopt(ctx context.Context, caller vm.Caller, selector, name string) (op.Operation, error)
	Fork(ctx context.Context, caller vm.Caller, selector string, r lifecycle.ForkRequest) (op.Operation, error)
	Checkpoints(ctx context.Context, caller vm.Caller, selector string) ([]lifecycle.Checkpoint, error)
	Checkpoint(ctx context.Context, caller vm.Caller, selector, name string) (op.Operation, error)
	Rollback(ctx context.Context, caller vm.Caller, selector, name string) (op.Operation, error)
	DeleteCheckpoint(ctx context.Context, caller vm.Caller, selector, name string) error
	Trash(caller vm.Caller) []lifecycle.Trashed
	Restore(ctx context.Context, caller vm.Caller, selector, name string) (op.Operation, error)
	Destroy(caller vm.Caller, selector string) (op.Operation, error)
	Ping(ctx context.Context, caller vm.Caller, selector string) (agentproto.Info, time.Duration, error)
	Listeners(ctx context.Context, caller vm.Caller, selector string) (agentproto.Listeners, error)
	Dial(ctx context.Context, caller vm.Caller, selector, host string, port int) (net.Conn, error)
	SSH(ctx context.Context, caller vm.Caller, selector string) (net.Conn, error)

	ListImages() ([]image.Manifest, error)
	FindImage(selector string) (image.Manifest, error)
	ImageUsers(ctx context.Context, caller vm.Caller) (map[string][]string, error)
	PullImage(caller vm.Caller, name string) (op.Operation, error)
	ImportImage(caller vm.Caller, r lifecycle.ImportRequest, kernelFrom string) (op.Operation, error)
	WarmImage(ctx context.Context, caller vm.Caller, r lifecycle.WarmRequest) (op.Operation, error)
	DeleteImage(ctx context.Context, caller vm.Caller, selector string) error
}

// Operations finds and follows operations.
type Operations interface {
	// List returns all that are kept, newest first.
	List(ctx context.Context) ([]op.Operation, error)
	Get(ctx context.Context, id op.ID) (op.Operation, error)
	Follow(ctx context.Context, id op.ID, each func(op.Operation) error) error
	Cancel(id op.ID) error
}

// Daemon tells about the process itself.
type Daemon interface {
	Status(ctx context.Context) (api.Status, error)
	Doctor(ctx context.Context) []api.Check
	// Metrics is a page of figures as Prometheus reads them.
	Metrics(ctx context.Context) (string, error)
	// ClosedDoors tells which of a VM's doors could not be opened, and why.
	ClosedDoors(id vm.ID) map[vm.Door]error
	// Upgrade answers whether a newer build is on disk; the daemon executes it once this answer is out.
	Upgrade(ctx context.Context) (api.Upgrade, error)
	// DNS tells whether the host's programs find VMs by name. SetUpDNS has its resolver ask the daemon, UndoDNS takes that back.
	DNS(ctx context.Context, caller vm.Caller) (api.DNS, error)
	SetUpDNS(ctx context.Context, caller vm.Caller, dryRun bool) (api.DNSChange, error)
	UndoDNS(ctx context.Context, caller vm.Caller, dryRun bool) (api.DNSChange, error)
}

// Config is what a server is made of.
type Config struct {
	Verbs      Verbs
	Operations Operations
	Events     Events
	Daemon     Daemon
	Usage      Usage
	Network    Network
	Policy     network.Policy // of VMs whose owner says nothing else
	Layout     vm.Layout
	Log        *slog.Logger
}

// Limits of a request.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute // of a connection between two requests
	maxHeader     = 64 << 10
	maxBody       = 1 << 20
	maxOperations = 100 // in a list
	maxReason     = 300 // of the text that says why: a field's name may be as long as the request
)

// New returns an HTTP server for the daemon's listener.
func New(c Config) *http.Server {
	speakFaults()
	s := &server{Config: c, closing: make(chan struct{})}
	srv := &http.Server{
		Handler:           s.observed(s.routes()),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withCaller,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	srv.RegisterOnShutdown(sync.OnceFunc(func() { close(s.closing) }))
	return srv
}

type server struct {
	Config
	closing chan struct{} // closed when Shutdown begins
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	a := humago.New(mux, apiConfig())
	s.machines(a)
	s.sets(a)
	s.ports(a)
	s.trash(a)
	s.snapshots(a)
	s.repair(a)
	s.usage(a)
	s.network(a)
	s.stats(a)
	s.pictures(a)
	s.operations(a)
	s.process(a)
	s.names(a)
	// Streams are plain handlers: they outgrow a request and an answer.
	mux.HandleFunc("GET /v1/vms/{vm}/logs", s.logs)
	mux.HandleFunc("GET /v1/vms/{vm}/dial", s.dial)
	mux.HandleFunc("GET /v1/vms/{vm}/ssh", s.ssh)
	mux.HandleFunc("POST /v1/images/import", s.importImage)
	mux.HandleFunc("GET /v1/operations/{id}/events", s.events)
	mux.HandleFunc("GET /v1/events", s.changes)
	mux.HandleFunc("GET /v1/metrics", s.metrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, fault.New(fault.NotFound, "there is no %s %s", r.Method, r.URL.Path).
			WithHint("see /v1/openapi.json for what there is; a newer command may ask what this daemon does not know"))
	})
	return mux
}

func apiConfig() huma.Config {
	c := huma.DefaultConfig("banger", buildinfo.Current().Version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "/v1/openapi", "", ""
	c.CreateHooks, c.Transformers = nil, nil // no $schema links in answers: the API is versioned by its path
	return c
}

// OpenAPI returns the description that is served at /v1/openapi.json, without the build's version.
func OpenAPI() ([]byte, error) {
	speakFaults()
	mux := http.NewServeMux()
	c := apiConfig()
	c.Info.Version = "v1"
	a := humago.New(mux, c)
	s := &server{}
	s.machines(a)
	s.sets(a)
	s.ports(a)
	s.trash(a)
	s.snapshots(a)
	s.repair(a)
	s.usage(a)
	s.network(a)
	s.stats(a)
	s.pictures(a)
	s.operations(a)
	s.process(a)
	s.names(a)
	return a.OpenAPI().MarshalJSON()
}

// problem is a fault as huma answers and describes it.
type problem fault.Error

// Error implements error.
func (p *problem) Error() string { return (*fault.Error)(p).Error() }

// GetStatus implements huma.StatusError.
func (p *problem) GetStatus() int { return api.HTTPStatus(p.Code) }

// ContentType implements huma.ContentTypeFilter.
func (*problem) ContentType(string) string { return "application/problem+json" }

// speakFaults makes huma's own refusals, such as an unknown field, faults too. Huma offers no place for
// that but a variable of its package.
var speakFaults = sync.OnceFunc(func() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		code := fault.Invalid
		switch {
		case status == http.StatusNotFound:
			code = fault.NotFound
		case status >= http.StatusInternalServerError:
			code = fault.Internal
		}
		for i, err := range errs {
			sep := "; "
			if i == 0 {
				sep = ": "
			}
			msg += sep + reason(err)
		}
		if len(msg) > maxReason {
			msg = strings.ToValidUTF8(msg[:maxReason], "") + " …"
		}
		return (*problem)(fault.New(code, "%s", msg).WithHint("see /v1/openapi.json for what this daemon takes"))
	}
})

// reason is what huma found wrong, and where, but not what it found there.
func reason(err error) string {
	if d, ok := errors.AsType[*huma.ErrorDetail](err); ok && d.Location != "" {
		return d.Message + " (" + d.Location + ")"
	}
	return err.Error()
}

// outcome turns a verb's error into what huma answers.
func outcome(err error) error {
	if err == nil {
		return nil
	}
	return (*problem)(fault.From(err))
}

// refuse answers with a fault where huma is not at work.
func refuse(w http.ResponseWriter, err error) {
	f := fault.From(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(api.HTTPStatus(f.Code))
	_, _ = w.Write(encode(f)) // a client that has gone needs no answer
}

type callerKey struct{}

// withCaller notes who is at the other end of a connection.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	caller, err := peer(conn)
	if err != nil {
		caller = vm.Caller{UID: -1, GID: -1} // nobody: owns nothing, sees nothing
	}
	return context.WithValue(ctx, callerKey{}, caller)
}

func callerOf(ctx context.Context) vm.Caller {
	c, ok := ctx.Value(callerKey{}).(vm.Caller)
	if !ok {
		return vm.Caller{UID: -1, GID: -1}
	}
	return c
}

// peer reads a Unix socket's peer credentials, as they were when it was connected.
func peer(conn net.Conn) (vm.Caller, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return vm.Caller{}, fmt.Errorf("%T has no peer credentials", conn)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return vm.Caller{}, err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err == nil {
		err = cerr
	}
	if err != nil {
		return vm.Caller{}, err
	}
	return vm.Caller{UID: int(cred.Uid), GID: int(cred.Gid), PID: int(cred.Pid)}, nil
}

// observed logs every request at debug and turns a panic into an answer. Where one has begun already
// it is broken off instead: what was sent must not pass for whole.
func (s *server) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		w.Header().Set("X-Content-Type-Options", "nosniff")
		a := &answering{ResponseWriter: w}
		defer func() {
			s.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "uid", callerOf(r.Context()).UID, "took", time.Since(begun))
		}()
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p) // of purpose: the answer is broken off
			}
			s.Log.Error("panic", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if a.begun {
				panic(http.ErrAbortHandler)
			}
			refuse(w, fault.New(fault.Internal, "the daemon hit a fault of its own").WithHint("see the daemon's log").WithLogs(s.Layout.DaemonLog()))
		}()
		next.ServeHTTP(a, r)
	})
}

// answering notes whether anything was sent.
type answering struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (a *answering) WriteHeader(status int) {
	a.begun = a.begun || status >= http.StatusOK
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answering) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and hijack.
func (a *answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }
