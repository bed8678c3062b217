// Package handover keeps sockets open while a process executes another build of itself: what a client
// sends or connects to meanwhile waits in the kernel, and the other build answers it.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

// handed names the descriptors that an older build left open, as a JSON object. Every build must go on to read it:
// the older one cannot know what a newer one would like better.
const handed = "BANGER_HANDED_FDS"

// Sockets are those that another build left to this one, and those that this one will leave to the next. A
// socket is known by a name, which says what it is for: two builds that name it alike are all that it takes.
type Sockets struct {
	mu   sync.Mutex
	left map[string]*os.File // by an older build, not yet asked for
	open map[string]filer
}

// filer is a socket that can be duplicated.
type filer interface{ File() (*os.File, error) }

// Take finds what an older build left. No child of this process will see it.
func Take() (*Sockets, error) {
	s := &Sockets{left: map[string]*os.File{}, open: map[string]filer{}}
	text, ok := os.LookupEnv(handed)
	if !ok {
		return s, nil
	}
	if err := os.Unsetenv(handed); err != nil {
		return nil, err
	}
	var fds map[string]int
	if err := json.Unmarshal([]byte(text), &fds); err != nil {
		return nil, fault.New(fault.Internal, "the sockets that were handed over cannot be used: %w", err).WithOp("listen", "").
			WithHint("start bangerd again")
	}
	for name, fd := range fds {
		if f := os.NewFile(uintptr(fd), name); f != nil {
			unix.CloseOnExec(fd)
			s.left[name] = f
		}
	}
	return s, nil
}

// take returns a file that was left under a name, once; nil where there is none.
func (s *Sockets) take(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.left[name]
	delete(s.left, name)
	return f
}

// Listener returns what an older build left under a name, and leaves it to the next; nil where it left none.
func (s *Sockets) Listener(name string) *Listener {
	f := s.take(name)
	if f == nil {
		return nil
	}
	defer f.Close() // FileListener makes its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		_ = l.Close()
		return nil
	}
	return s.keepListener(name, t)
}

// PacketConn is Listener for datagrams.
func (s *Sockets) PacketConn(name string) *PacketConn {
	f := s.take(name)
	if f == nil {
		return nil
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		_ = c.Close()
		return nil
	}
	return s.keepPacketConn(name, u)
}

// Listen returns the listener that was left under a name, or makes one. Until it is closed it is left to the next build.
func (s *Sockets) Listen(ctx context.Context, name string, lc net.ListenConfig, address string) (*Listener, error) {
	if l := s.Listener(name); l != nil {
		return l, nil
	}
	l, err := lc.Listen(ctx, "tcp"+family(address), address)
	if err != nil {
		return nil, err
	}
	return s.keepListener(name, l.(*net.TCPListener)), nil
}

// family is what an address says of it, "4" or "6": 0.0.0.0 and [::] would be taken for each other's too.
func family(address string) string {
	switch a, err := netip.ParseAddrPort(address); {
	case err != nil:
		return ""
	case a.Addr().Is4():
		return "4"
	default:
		return "6"
	}
}

// ListenPacket is Listen for datagrams.
func (s *Sockets) ListenPacket(ctx context.Context, name string, lc net.ListenConfig, address string) (*PacketConn, error) {
	if c := s.PacketConn(name); c != nil {
		return c, nil
	}
	c, err := lc.ListenPacket(ctx, "udp"+family(address), address)
	if err != nil {
		return nil, err
	}
	return s.keepPacketConn(name, c.(*net.UDPConn)), nil
}

// CloseRest closes what nobody has asked for: it is of no use to this build.
func (s *Sockets) CloseRest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.left {
		_ = f.Close()
	}
	clear(s.left)
}

// Listener is one that is left to the next build unless it is closed before.
type Listener struct {
	*net.TCPListener
	forget func()
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.forget()
	return l.TCPListener.Close()
}

// PacketConn is a socket for datagrams that is left to the next build unless it is closed before.
type PacketConn struct {
	*net.UDPConn
	forget func()
}

// Close implements net.PacketConn.
func (c *PacketConn) Close() error {
	c.forget()
	return c.UDPConn.Close()
}

func (s *Sockets) keepListener(name string, l *net.TCPListener) *Listener {
	return &Listener{TCPListener: l, forget: s.keep(name, l)}
}

func (s *Sockets) keepPacketConn(name string, c *net.UDPConn) *PacketConn {
	return &PacketConn{UDPConn: c, forget: s.keep(name, c)}
}

func (s *Sockets) keep(name string, f filer) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[name] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[name] == f { // and not another that took the name meanwhile
			delete(s.open, name)
		}
	}
}

// Handover is a duplicate of every socket that was open at its time: they may be closed now.
type Handover struct{ files map[string]*os.File }

// HandOver duplicates what is open. What arrives from now on may be left where it is: the next build reads it.
func (s *Sockets) HandOver() (*Handover, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &Handover{files: map[string]*os.File{}}
	var errs []error
	for name, f := range s.open {
		dup, err := f.File()
		switch {
		case err == nil:
			h.files[name] = dup
		case !errors.Is(err, net.ErrClosed):
			errs = append(errs, fault.System(err, "hand over", name))
		}
	}
	return h, errors.Join(errs...)
}

// Environment returns what is to be added to the environment of the build that is executed, and has the sockets stay open for it. It is
// called last of all: a program that were started now would get them too.
func (h *Handover) Environment() ([]string, error) {
	fds := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(h.files)) {
		// Not by Fd, which would have the socket block, for whoever still reads from it too.
		raw, err := h.files[name].SyscallConn()
		if err != nil {
			return nil, err
		}
		var set error
		err = raw.Control(func(fd uintptr) {
			fds[name] = int(fd)
			_, set = unix.FcntlInt(fd, unix.F_SETFD, 0)
		})
		if err := errors.Join(err, set); err != nil {
			return nil, fault.System(err, "hand over", name)
		}
	}
	text, err := json.Marshal(fds)
	return []string{handed + "=" + string(text)}, err
}
