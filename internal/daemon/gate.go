package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/host/drain"
	"banger/internal/host/firewall"
	"banger/internal/host/firewall/others"
	"banger/internal/host/forwarding"
	"banger/internal/network"
	"banger/internal/vm"
)

// gate is what stands between guests and everything else: the instance's own tables, and what else of the host keeps
// packets from getting out: the kernel's settings, and others' firewalls.
type gate struct {
	tables     *firewall.Firewall
	others     *others.Others
	forwarding *forwarding.Forwarding
	log        *slog.Logger

	mu     sync.Mutex
	fit    bool // the kernel has what the tables need
	passes bool // others' firewalls have been asked

	whole   sync.RWMutex // written to where all of it is taken away, read where a guest needs it
	passing sync.Mutex   // one at a time, or both find that an accept is missing
}

// Guard implements nic.Gate.
func (g *gate) Guard(ctx context.Context, guest network.Guest) error {
	g.whole.RLock()
	defer g.whole.RUnlock()
	if err := g.need(ctx, guest); err != nil {
		return err
	}
	if err := g.tables.Put(ctx, guest); err != nil {
		return err
	}
	g.mu.Lock()
	first := !g.passes
	g.passes = true
	g.mu.Unlock()
	if first {
		g.pass(ctx)
	}
	return nil
}

// need has the kernel forward what a guest sends, and what guests of different bridges send each other.
func (g *gate) need(ctx context.Context, guest network.Guest) error {
	p := guest.Policy
	out := p.Egress != network.EgressNone
	_, n, _ := vm.BridgeOf(guest.Bridge)
	across := !p.Isolated && n > 0
	return g.forwarding.Need(ctx, p.NAT && out || across, p.NAT6 && out || across && guest.Address6.IsValid())
}

// begin has the gate be as these guests need it, who run already: those of a daemon before this one, which may have been
// of another build. Where there are none it is left until nothing of an interrupted start is there any more, since a guest
// without rules may be behind a TAP that is.
func (g *gate) begin(ctx context.Context, guests []network.Guest) {
	if len(guests) == 0 {
		return
	}
	for _, guest := range guests {
		if err := g.need(ctx, guest); err != nil {
			g.log.Error("have packets of VMs forwarded", "vm", guest.Name, "error", err)
		}
	}
	if err := g.tables.Rebuild(ctx, guests); err != nil {
		g.log.Error("make the firewall anew", "error", err)
	}
}

// tidy removes tables that no guest needs.
func (g *gate) tidy(ctx context.Context) {
	if err := g.tables.Remove(ctx); err != nil && !fault.Is(err, fault.InUse) {
		g.log.Error("remove the firewall", "error", err)
	}
}

// Unguard implements nic.Gate.
func (g *gate) Unguard(ctx context.Context, tap string) error { return g.tables.Drop(ctx, tap) }

// Guarded implements nic.Gate.
func (g *gate) Guarded(ctx context.Context) ([]string, error) { return g.tables.Guests(ctx) }

// Learn implements dns.Learner.
func (g *gate) Learn(ctx context.Context, tap, name string, addrs []netip.Addr, ttl time.Duration) error {
	return g.tables.Learn(ctx, tap, name, addrs, ttl)
}

// CheckFirewall implements nic.Gate. What a kernel has it keeps.
func (g *gate) CheckFirewall() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fit {
		return nil
	}
	err := g.tables.Check()
	g.fit = err == nil
	return err
}

// SetNAT lets the guest behind a TAP out by the host's addresses, or does not, without a daemon: one that runs has the last
// word.
func SetNAT(ctx context.Context, tap string, on bool) error {
	tag, ok := vm.TagOf(tap)
	if !ok {
		return fault.New(fault.Invalid, "it is no VM's TAP").WithOp("set NAT of", tap).WithHint("such as bt1a2b-0123abcd: see `ip link`")
	}
	return firewall.New(tag).SetNAT(ctx, tap, on)
}

// checks are what doctor looks at: what others' firewalls do to guests.
func (g *gate) checks() []feature.Check {
	return []feature.Check{{
		Name: "other firewalls",
		Probe: func(ctx context.Context) (string, error) {
			accepts, err := g.others.List(ctx)
			if err != nil || len(accepts) == 0 {
				return "none drops what the host forwards", err
			}
			guests, err := g.tables.Guests(ctx)
			var lines []string
			for _, a := range accepts {
				switch {
				case a.There:
					lines = append(lines, a.Firewall+" lets VMs through, by what "+a.Where+" has of the name "+a.Name)
				case len(guests) > 0:
					return "", fault.New(fault.Unavailable, "%s drops what the host forwards, VMs' packets too", a.Firewall).
						WithHint("banger adds this to %s by itself, within a minute: %s", a.Where, a.Rules)
				default:
					lines = append(lines, a.Firewall+" drops what the host forwards; it is told to let VMs through when one starts")
				}
			}
			return strings.Join(lines, "; "), err
		},
		Fix: "see the daemon's log for why it could not be told",
	}}
}

// pass has others' firewalls let guests through. One that does not keeps no VM from running.
func (g *gate) pass(ctx context.Context) {
	g.passing.Lock()
	defer g.passing.Unlock()
	added, err := g.others.Ensure(ctx)
	if len(added) > 0 {
		g.log.Info("another firewall drops what the host forwards; it lets VMs through now", "firewalls", added)
	}
	if err != nil && ctx.Err() == nil {
		g.log.Warn("let VMs through another firewall", "error", err)
	}
}

// Bounds of looking whether the gate is as it was made.
const (
	gateInterval = time.Minute            // in any case
	gatePause    = 500 * time.Millisecond // after somebody changed a firewall: a reload makes many changes
)

// keep looks after the gate until ctx ends: whenever somebody changed a firewall, and from time to time.
func (g *gate) keep(ctx context.Context) {
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		err := firewall.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default: // it is said already
			}
		})
		if err != nil {
			g.log.Warn("watch the host's firewalls", "error", err, "instead", "they are looked at every minute")
		}
	})
	defer watching.Wait()
	tick := time.NewTicker(gateInterval)
	defer tick.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			pause.Reset(gatePause)
			continue
		case <-tick.C:
		case <-pause.C:
		}
		g.look(ctx)
	}
}

// look puts the gate right where there are guests.
func (g *gate) look(ctx context.Context) {
	mended, err := g.tables.Ensure(ctx)
	if mended {
		g.log.Warn("somebody had changed the instance's firewall; it is as it was")
	}
	if err != nil && ctx.Err() == nil {
		g.log.Error("look after the firewall", "error", err)
	}
	g.whole.RLock()
	defer g.whole.RUnlock()
	if guests, err := g.tables.Guests(ctx); err == nil && len(guests) > 0 {
		g.pass(ctx)
	}
}

// keepGate has the gate looked after, and refusals noted, until the returned function is called, which waits.
func (d *Daemon) keepGate(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var both sync.WaitGroup
	both.Go(func() { d.gate.keep(ctx) })
	both.Go(func() {
		if err := d.gate.tables.Refusals(ctx, d.refusedPacket); err != nil {
			d.log.Warn("what guests are refused is not noted", "error", err)
		}
	})
	return func() { cancel(); both.Wait() }
}

// refusedPacket notes a packet of a guest's that was not let through.
func (d *Daemon) refusedPacket(r firewall.Refusal) {
	v, known, err := d.store.At(context.Background(), r.Source.Addr())
	if err != nil || !known {
		return // it has gone meanwhile
	}
	why := ""
	switch r.Towards {
	case firewall.ToHost:
		why = "the host's own services are closed to guests"
	case firewall.ToGuest:
		why = "one of the two is isolated"
	case firewall.ToOutside:
		why = network.WhyRefused(network.PolicyOf(v, d.cfg.Network), r.Destination.Addr())
	}
	d.noteRefusal(v.ID, network.Refusal{
		Time: r.At, Protocol: r.Protocol, Destination: r.Destination.Addr(), Port: r.Destination.Port(), Why: why, Lost: r.Lost,
	})
}

// refusedName notes a name that a guest asked for and was not told.
func (d *Daemon) refusedName(g network.Guest, name string) {
	d.noteRefusal(g.ID, network.Refusal{Time: time.Now(), Protocol: "dns", Name: name, Why: network.WhyUnnamed(g.Policy)})
}

// noteRefusal adds to a VM's network log.
func (d *Daemon) noteRefusal(id vm.ID, r network.Refusal) {
	line, err := json.Marshal(r)
	if err == nil {
		d.noting.Lock() // or two find that it is full, and the one that is set aside is lost
		err = drain.Append(d.layout.NetworkLog(id), line)
		d.noting.Unlock()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the VM has gone meanwhile
		d.log.Warn("note what a guest was refused", "id", id, "error", err)
	}
}

// guests are those that run, as the store has them.
func (d *Daemon) guests(ctx context.Context) ([]network.Guest, error) {
	all, err := d.store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(v vm.VM) bool { return v.Process == nil })
	guests := make([]network.Guest, len(all))
	for i, v := range all {
		guests[i] = network.GuestOf(v, d.cfg.Network)
	}
	return guests, nil
}
