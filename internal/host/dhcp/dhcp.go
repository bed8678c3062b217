// Package dhcp answers guests whose own network manager asks for an address, with the one that they have: the agent has
// set it before, and a guest that insists on DHCP would otherwise take it away again.
//
// What it does happens in the network namespace of the thread that calls Serve.
package dhcp

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

// Config says whom to serve, and with what.
type Config struct {
	// Bridge reports whether a device is one whose guests are answered, by its name.
	Bridge func(device string) bool
	// Lease is that of the VM with this MAC address, and the VM's name.
	Lease func(mac net.HardwareAddr) (l vm.Lease, name string, ok bool)
	// Began is told that a bridge is served, or why it cannot be; Ended, that it is no more.
	Began func(bridge string, err error)
	Ended func(bridge string)
	// Failed is told what goes wrong apart from that.
	Failed func(error)
}

// Port is what is listened on.
const Port = 67

const (
	clientPort = 68
	retry      = 30 * time.Second // until a bridge that could not be served is tried again
)

// Serve answers on each bridge as long as that is there, until ctx ends.
func Serve(ctx context.Context, c Config) {
	s := &servers{Config: c, all: map[int]*server{}}
	defer s.keep(nil)
	for ctx.Err() == nil {
		if err := s.follow(ctx); err != nil && ctx.Err() == nil {
			c.Failed(err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second): // the kernel says no, or it had more to tell than it could keep
			}
		}
	}
}

// servers are those of the bridges that are there, by the devices' numbers: a bridge that is made anew has another.
type servers struct {
	Config

	all map[int]*server
}

// follow looks which bridges there are, and then does as the kernel tells of devices.
func (s *servers) follow(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	updates := make(chan netlink.LinkUpdate, 64)
	lost := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case lost <- err:
		default:
		}
	}})
	if err != nil {
		return err
	}
	defer func() { // the subscription ends only when it can say what it has to say
		go func() {
			for range updates {
			}
		}()
	}()
	if err := s.look(ctx); err != nil {
		return err
	}
	for {
		var again <-chan time.Time
		if slices.ContainsFunc(slices.Collect(maps.Values(s.all)), func(s *server) bool { return s.conn == nil }) {
			again = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			return err
		case <-again:
			if err := s.look(ctx); err != nil {
				return err
			}
		case u, open := <-updates:
			switch {
			case !open:
				return errors.New("the kernel tells no more of devices")
			case u.Header.Type == unix.RTM_DELLINK && u.IfInfomsg.Family != unix.AF_BRIDGE: // of that family it is a port that left
				s.end(int(u.Index))
			case u.Header.Type == unix.RTM_NEWLINK:
				s.begin(u.Link, false)
			}
		}
	}
}

// look serves the bridges that there are, those once more that could not be served, and no others.
func (s *servers) look(ctx context.Context) error {
	links, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) && ctx.Err() == nil {
		links, err = netlink.LinkList()
	}
	if err != nil {
		return err
	}
	there := map[int]bool{}
	for _, l := range links {
		there[l.Attrs().Index] = true
		s.begin(l, true)
	}
	s.keep(there)
	return nil
}

// begin serves a device if it is one to serve, unless it is served, or was found not to be possible to and is not to be tried again.
func (s *servers) begin(l netlink.Link, again bool) {
	attrs := l.Attrs()
	had := s.all[attrs.Index]
	if l.Type() != "bridge" || !s.Bridge(attrs.Name) || had != nil && (had.conn != nil || !again) {
		return
	}
	n, err := open(attrs, s.Lease)
	if errors.Is(err, unix.ENODEV) {
		return // it is gone by now
	}
	if had == nil || err == nil {
		s.Began(attrs.Name, err)
	}
	s.all[attrs.Index] = n
	if err == nil {
		n.wg.Go(n.serve)
	}
}

// end stops serving a device.
func (s *servers) end(index int) {
	n := s.all[index]
	if n == nil {
		return
	}
	delete(s.all, index)
	n.close()
	s.Ended(n.bridge)
}

// keep stops serving all but these devices.
func (s *servers) keep(these map[int]bool) {
	for index := range maps.Clone(s.all) {
		if !these[index] {
			s.end(index)
		}
	}
}

// server answers on one bridge.
type server struct {
	bridge string
	index  int
	mtu    uint16
	lease  func(mac net.HardwareAddr) (vm.Lease, string, bool)

	conn       net.PacketConn // nil where there is none
	neighbours *netlink.Handle
	closed     chan struct{}
	wg         sync.WaitGroup
}

func open(bridge *netlink.LinkAttrs, lease func(mac net.HardwareAddr) (vm.Lease, string, bool)) (*server, error) {
	s := &server{bridge: bridge.Name, index: bridge.Index, mtu: uint16(min(bridge.MTU, 1<<16-1)), lease: lease, closed: make(chan struct{})}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.BindToDevice(int(fd), s.bridge),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				// So that a server which serves other devices, as such servers are made, keeps its socket and leaves us ours.
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		})
		return errors.Join(err, failed)
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), Port).String())
	if err != nil {
		return s, err
	}
	if s.neighbours, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return s, errors.Join(err, conn.Close())
	}
	s.conn = conn
	return s, nil
}

func (s *server) close() {
	if s.conn == nil {
		return
	}
	close(s.closed)
	_ = s.conn.Close()
	s.wg.Wait()
	s.neighbours.Close()
}

// No guest needs more than a few answers, and all of them together need no more than these in a second. What comes beyond waits in
// the kernel, as far as there is room.
const (
	perBurst = 200
	burst    = time.Second
)

// serve answers one packet after another, until the socket is closed.
func (s *server) serve() {
	packet := make([]byte, 1500)
	begun, n := time.Now(), 0
	for {
		size, _, err := s.conn.ReadFrom(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if now := time.Now(); now.Sub(begun) > burst {
			begun, n = now, 0
		}
		if n++; n > perBurst {
			select {
			case <-s.closed:
			case <-time.After(burst - time.Since(begun)):
			}
		}
		if err != nil { // as when the device is down
			continue
		}
		if reply, to := s.answer(packet[:size]); reply != nil {
			s.send(reply.ToBytes(), to, reply.ClientHWAddr)
		}
	}
}

// send has a reply reach a guest that may have no address yet: the kernel is told which MAC that has, so that it need
// not ask. A reply that is lost is asked for again.
func (s *server) send(reply []byte, to netip.Addr, mac net.HardwareAddr) {
	if to.IsUnspecified() {
		to = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	} else if err := s.neighbours.NeighSet(&netlink.Neigh{
		LinkIndex: s.index, Family: unix.AF_INET, IP: to.AsSlice(), HardwareAddr: mac, State: netlink.NUD_STALE,
	}); err != nil {
		return
	}
	_, _ = s.conn.WriteTo(reply, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, clientPort)))
}
