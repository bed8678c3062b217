// Package door listens on ports of this host and leads whoever connects into guests, through their agents: so it reaches
// what listens on a guest's loopback alone, and needs no route to the guest.
package door

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/handover"
	"banger/internal/procnet"
	"banger/internal/relay"
	"banger/internal/vm"
)

const (
	// MaxConnections bounds those into one VM: its agent has 256 streams, and others need some too.
	MaxConnections = 200

	dialBudget  = 10 * time.Second
	acceptPause = 100 * time.Millisecond // after a failure, such as of too many open files
)

// Dial connects to a port of a VM's guest. The connection can be closed for writing alone.
type Dial = func(ctx context.Context, id vm.ID, port int) (net.Conn, error)

// Doors are those of this instance's VMs that run.
type Doors struct {
	sockets *handover.Sockets
	dial    Dial
	log     *slog.Logger

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	accepts  sync.WaitGroup
	connects sync.WaitGroup

	mu  sync.Mutex
	vms map[vm.ID]*house
}

// house is the doors of one VM.
type house struct {
	open   map[netip.AddrPort]*open
	closed map[vm.Door]error // those that could not be opened, and why
	tokens chan struct{}     // one for each connection
}

// open is one that is open.
type open struct {
	port     atomic.Uint32 // of the guest
	listener *handover.Listener
	ctx      context.Context // ends when it is closed
	cancel   context.CancelFunc
}

// New returns none. What an older build of this daemon left open is gone on with when it is opened.
func New(sockets *handover.Sockets, dial Dial, log *slog.Logger) *Doors {
	ctx, cancel := context.WithCancel(context.Background())
	return &Doors{sockets: sockets, dial: dial, log: log, ctx: ctx, cancel: cancel, vms: map[vm.ID]*house{}}
}

// Open has a VM have these doors open and no others. Those that can be are, and it says why another cannot.
func (ds *Doors) Open(ctx context.Context, id vm.ID, doors vm.Doors) (closed map[vm.Door]error) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	h := ds.vms[id]
	if h == nil {
		h = &house{open: map[netip.AddrPort]*open{}, tokens: make(chan struct{}, MaxConnections)}
	}
	h.closed = map[vm.Door]error{}
	for listen, o := range h.open { // first: another may want its place
		if !slices.ContainsFunc(doors, func(d vm.Door) bool { return d.Listen == listen }) {
			o.close()
			delete(h.open, listen)
		}
	}
	for _, d := range doors {
		o := h.open[d.Listen]
		if o == nil {
			var err error
			if o, err = ds.listen(ctx, id, d); err != nil {
				h.closed[d] = err
				continue
			}
			h.open[d.Listen] = o
			ds.accepts.Go(func() { ds.accept(id, h, o) })
		}
		o.port.Store(uint32(d.Port))
	}
	if len(doors) == 0 {
		delete(ds.vms, id)
	} else {
		ds.vms[id] = h
	}
	return maps.Clone(h.closed)
}

// Close closes all doors of a VM, and ends the connections through them.
func (ds *Doors) Close(ctx context.Context, id vm.ID) error {
	ds.Open(ctx, id, nil)
	return nil
}

// Found lists the VMs that have doors.
func (ds *Doors) Found() []vm.ID {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return slices.Sorted(maps.Keys(ds.vms))
}

// Closed tells which of a VM's doors could not be opened, and why.
func (ds *Doors) Closed(id vm.ID) map[vm.Door]error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if h := ds.vms[id]; h != nil {
		return maps.Clone(h.closed)
	}
	return nil
}

// Check says why a door of a VM could not be opened. Those that are open can.
func (ds *Doors) Check(ctx context.Context, id vm.ID, d vm.Door) error {
	ds.mu.Lock()
	h := ds.vms[id]
	is := h != nil && h.open[d.Listen] != nil
	ds.mu.Unlock()
	if is {
		return nil
	}
	l, err := listen(ctx, d.Listen)
	if err != nil {
		return refused(d, err)
	}
	return l.Close()
}

// Root is below which number ports are root's, as this kernel has it.
func Root() int {
	text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		return n
	}
	return 1024
}

// Those that are chosen are not among what most kernels choose for a connection's own end, by net.ipv4.ip_local_port_range.
const (
	firstFree = 20000
	endFree   = 30000
	freeTries = 100
)

// Free chooses a port on which nobody listens.
func (ds *Doors) Free(addr netip.Addr) (uint16, error) {
	for range freeTries {
		at := netip.AddrPortFrom(addr, uint16(firstFree+rand.IntN(endFree-firstFree))) //nolint:gosec // that it can be guessed does no harm
		l, err := listen(ds.ctx, at)
		if err == nil {
			return at.Port(), l.Close()
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return 0, refused(vm.Door{Listen: at}, err)
		}
	}
	return 0, fault.New(fault.Exhausted, "no port from %d to %d is free", firstFree, endFree-1).WithOp("listen on", addr.String()).
		WithHint("say which host port it is to be")
}

// Shut ends everything, once what is under way has had so long to end by itself. What was left to another build before
// stays open, and who connects waits for that.
func (ds *Doors) Shut(drain time.Duration) {
	ds.mu.Lock()
	for _, h := range ds.vms {
		for _, o := range h.open {
			_ = o.listener.Close() // it is left to another build, or is of no use any more
		}
	}
	ds.mu.Unlock()
	ds.accepts.Wait()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ds.connects.Wait()
	}()
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
	ds.cancel()
	<-ended
}

func (ds *Doors) listen(ctx context.Context, id vm.ID, d vm.Door) (*open, error) {
	if ds.ctx.Err() != nil {
		return nil, fault.New(fault.Unavailable, "the daemon ends").WithOp("listen on", d.Listen.String())
	}
	l, err := ds.sockets.Listen(ctx, "door/"+string(id)+"/"+d.Listen.String(), net.ListenConfig{}, d.Listen.String())
	if err != nil {
		return nil, refused(d, err)
	}
	o := &open{listener: l}
	o.ctx, o.cancel = context.WithCancel(ds.ctx)
	return o, nil
}

func listen(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	network := "tcp4"
	if at.Addr().Is6() {
		network = "tcp6"
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, at.String())
}

// close stops listening and ends what has come in.
func (o *open) close() {
	_ = o.listener.Close() // nothing is lost
	o.cancel()
}

// refused says why a door cannot be opened.
func refused(d vm.Door, err error) error {
	at := d.Listen.String()
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fault.New(fault.InUse, "%s", procnet.Holder(d.Listen)).WithOp("listen on", at).
			WithHint("choose another host port, or `:%d` for one that is free", d.Port)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fault.New(fault.Unavailable, "this host has no address %s", d.Listen.Addr()).WithOp("listen on", at).
			WithHint("`ip address` shows those that it has")
	default:
		return fault.System(err, "listen on", at)
	}
}

func (ds *Doors) accept(id vm.ID, h *house, o *open) {
	for {
		near, err := o.listener.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			ds.log.Warn("a door cannot take a connection", "id", id, "error", err)
			select {
			case <-o.ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case h.tokens <- struct{}{}:
			ds.connects.Go(func() {
				defer func() { <-h.tokens }()
				ds.lead(id, o, near)
			})
		default:
			reset(near)
		}
	}
}

// lead joins a connection to one into the guest, and closes both.
func (ds *Doors) lead(id vm.ID, o *open, near *net.TCPConn) {
	defer func() { _ = near.Close() }()
	ctx, cancel := context.WithTimeout(o.ctx, dialBudget)
	defer cancel()
	far, err := ds.dial(ctx, id, int(o.port.Load()))
	if err != nil {
		ds.log.Debug("a door leads nowhere", "id", id, "error", err)
		reset(near)
		return
	}
	defer far.Close()
	abort := func() {
		reset(near)
		_ = far.Close() // which ends the copying
	}
	defer context.AfterFunc(o.ctx, abort)()
	_ = relay.Both(near, far.(relay.Conn), abort) // both ends know how it ended
}

// reset closes a connection in a way that its other end takes for a failure.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
