package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/host/resolver"
	"banger/internal/network"
	"banger/internal/store"
	"banger/internal/vm"
)

// wiring has the host's resolver ask this daemon, where somebody set that up.
type wiring struct {
	host   resolver.Host
	store  *store.Store
	server func() netip.AddrPort // where the daemon is asked; not valid where it is not
	log    *slog.Logger

	mu   sync.Mutex // held by whoever sets up or undoes
	stop func()     // ends the watch over systemd-resolved; nil while there is none
}

const (
	wiringTimeout = 20 * time.Second
	proofTimeout  = 5 * time.Second
)

// start wires what was set up before: the port may be another since, and what systemd-resolved was told goes with its link and with itself.
func (w *wiring) start(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	is, ok, err := w.stored(ctx)
	if err != nil || !ok {
		if err != nil {
			w.log.Error("what was set up for names cannot be read", "error", err)
		}
		return
	}
	if is.Kind == resolver.NetworkManager {
		w.apply(ctx, is)
	}
	w.watch(ctx, is)
}

func (w *wiring) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unwatch()
}

// watch keeps systemd-resolved told. Nothing is to be kept of a file.
func (w *wiring) watch(ctx context.Context, is resolver.Wiring) {
	if w.stop != nil || is.Kind != resolver.Resolved {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.host.Watch(ctx, func() { w.apply(ctx, is) })
	}()
	w.stop = func() {
		cancel()
		<-done
	}
}

func (w *wiring) unwatch() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

func (w *wiring) apply(ctx context.Context, is resolver.Wiring) {
	server := w.server()
	if !server.IsValid() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wiringTimeout)
	defer cancel()
	if _, err := w.host.Apply(ctx, is, server); err != nil && ctx.Err() == nil {
		w.log.Warn("the host's resolver was not told of VMs' names", "error", err)
	}
}

func (w *wiring) stored(ctx context.Context) (is resolver.Wiring, ok bool, err error) {
	ok, err = w.store.Wiring(ctx, &is)
	return is, ok, err
}

// look tells what is set up, and whether it works.
func (w *wiring) look(ctx context.Context, vms []vm.VM) (api.DNS, error) {
	var out api.DNS
	if server := w.server(); server.IsValid() {
		out.Server = server.String()
	}
	is, ok, err := w.stored(ctx)
	if err != nil || !ok {
		return out, err
	}
	out.Wiring = string(is.Kind)
	out.Proof = w.prove(ctx, is, vms)
	return out, nil
}

// elsewhere says where a name leads that leads to no VM.
func elsewhere(got []netip.Addr) *fault.Error {
	if len(got) == 0 {
		return fault.New(fault.Unavailable, "the host's resolver has no address of it")
	}
	texts := make([]string, len(got))
	for i, a := range got {
		texts[i] = a.String()
	}
	return fault.New(fault.Unavailable, "the host's resolver has it at %s", strings.Join(texts, ", "))
}

// prove asks for a VM that runs, as the host's programs do; nil where none runs. What was wired a moment ago may take one more.
func (w *wiring) prove(ctx context.Context, is resolver.Wiring, vms []vm.VM) *api.DNSProof {
	i := slices.IndexFunc(vms, func(v vm.VM) bool { return v.State == vm.Running })
	if i < 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	want := vms[i].Lease.Address.Addr()
	p := &api.DNSProof{Name: vms[i].Name + "." + network.Domain, Address: want.String()}
	for {
		got, err := w.host.Resolve(ctx, is, p.Name)
		if err == nil && slices.Contains(got, want) {
			p.Error = nil
			return p
		}
		if err == nil {
			err = elsewhere(got).WithOp("resolve", p.Name).
				WithHint("see what %s logs: journalctl -u %s; `banger dns undo` and `banger dns setup` tell it anew", is.Kind, is.Kind)
		}
		if p.Error == nil || ctx.Err() == nil {
			p.Error = fault.From(err)
		}
		select {
		case <-ctx.Done():
			return p
		case <-time.After(proofTimeout / 10):
		}
	}
}

func onlyRoot(caller vm.Caller, verb string) error {
	if caller.UID != 0 {
		return fault.New(fault.Forbidden, "it concerns everybody on this host, so only root may").WithOp(verb, "").WithHint("run it with sudo")
	}
	return nil
}

// setUp wires the host's resolver, or only says how.
func (w *wiring) setUp(ctx context.Context, caller vm.Caller, dryRun bool, vms []vm.VM) (api.DNSChange, error) {
	const verb = "set up names"
	if err := onlyRoot(caller, verb); err != nil {
		return api.DNSChange{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	server := w.server()
	if !server.IsValid() {
		return api.DNSChange{}, fault.New(fault.Unavailable, "the daemon answers on no port of the loopback").WithOp(verb, "").
			WithHint("see `banger status` for why, and set dns.listen in its configuration")
	}
	ctx, cancel := context.WithTimeout(ctx, wiringTimeout)
	defer cancel()
	is, err := w.host.Choose(ctx, server)
	if err != nil {
		return api.DNSChange{}, err
	}
	out := api.DNSChange{Steps: w.host.Steps(is, server)}
	if dryRun {
		return out, nil
	}
	was, had, err := w.stored(ctx)
	switch {
	case err != nil:
		return out, err
	case had && was.Kind == is.Kind:
		is = was // it knows what was there before
	case had:
		if err := w.takeBack(ctx, was); err != nil {
			return out, err
		}
	}
	if err := w.store.SetWiring(ctx, is); err != nil {
		return out, err
	}
	if _, err := w.host.Apply(ctx, is, server); err != nil {
		if undone := w.takeBack(context.WithoutCancel(ctx), is); undone != nil {
			w.log.Error("take back what was set up for names", "error", undone)
		}
		return out, err
	}
	w.watch(ctx, is)
	w.log.Info("the host's resolver is told of VMs' names", "wiring", is.Kind, "server", server)
	out.Done = true
	out.DNS, err = w.look(context.WithoutCancel(ctx), vms)
	return out, err
}

// takeBack leaves the host's resolver as it was before, and forgets that it ever was another.
func (w *wiring) takeBack(ctx context.Context, is resolver.Wiring) error {
	w.unwatch()
	if err := w.host.Undo(ctx, is); err != nil {
		return err
	}
	return w.store.SetWiring(ctx, nil)
}

// undo takes back what setUp did, or only says what that is.
func (w *wiring) undo(ctx context.Context, caller vm.Caller, dryRun bool) (api.DNSChange, error) {
	if err := onlyRoot(caller, "take names back"); err != nil {
		return api.DNSChange{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, wiringTimeout)
	defer cancel()
	is, ok, err := w.stored(ctx)
	if err != nil {
		return api.DNSChange{}, err
	}
	out := api.DNSChange{}
	if ok {
		out.Steps = w.host.UndoSteps(is)
	}
	if !dryRun {
		if ok {
			if err := w.takeBack(ctx, is); err != nil {
				return out, err
			}
			w.log.Info("the host's resolver is as it was before it was told of VMs' names", "wiring", is.Kind)
		}
		out.Done = true
	}
	out.DNS, err = w.look(ctx, nil)
	return out, err
}

// DNS implements server.Daemon.
func (d *Daemon) DNS(ctx context.Context, caller vm.Caller) (api.DNS, error) {
	vms, err := d.manager.List(ctx, caller)
	if err != nil {
		return api.DNS{}, err
	}
	return d.wiring.look(ctx, vms)
}

// SetUpDNS implements server.Daemon.
func (d *Daemon) SetUpDNS(ctx context.Context, caller vm.Caller, dryRun bool) (api.DNSChange, error) {
	vms, err := d.manager.List(ctx, caller)
	if err != nil {
		return api.DNSChange{}, err
	}
	return d.wiring.setUp(ctx, caller, dryRun, vms)
}

// UndoDNS implements server.Daemon.
func (d *Daemon) UndoDNS(ctx context.Context, caller vm.Caller, dryRun bool) (api.DNSChange, error) {
	return d.wiring.undo(ctx, caller, dryRun)
}
