package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/procnet"
)

// listeners are what the daemon listens on beside its socket, or tries to.
type listeners struct {
	mu  sync.Mutex
	all map[[2]string]api.Listener // by name and address
}

// note says how it went; nil is well.
func (l *listeners) note(name, address string, err error) {
	n := api.Listener{Name: name, Address: address}
	if err != nil {
		n.Error = fault.From(err).Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[[2]string]api.Listener{}
	}
	l.all[[2]string{name, address}] = n
}

// forget says that nobody is to be served there any more.
func (l *listeners) forget(name, address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, [2]string{name, address})
}

func (l *listeners) list() []api.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []api.Listener
	for _, n := range l.all {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b api.Listener) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Address, b.Address))
	})
	return out
}

// refused explains that a port could not be had, and who has it where that can be seen.
func refused(err error, address netip.AddrPort) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fault.System(err, "listen on", address.String())
	}
	who := "another program"
	sockets, _ := procnet.Listening("/proc/net") // it only says who
	datagrams, _ := procnet.Receiving("/proc/net")
	sockets = slices.DeleteFunc(append(sockets, datagrams...), func(s procnet.Socket) bool {
		a := s.Address.Addr().Unmap()
		return s.Address.Port() != address.Port() || a != address.Addr() && !a.IsUnspecified() && !address.Addr().IsUnspecified()
	})
	for _, p := range procnet.Holders("/proc", sockets) {
		who = fmt.Sprintf("%s, process %d,", p.Name, p.PID)
	}
	return fault.New(fault.InUse, "%s has that port", who).WithOp("listen on", address.String()).WithHint("have that program listen elsewhere, or on addresses of its own")
}
