// Package link makes and removes the network devices of VMs: one bridge for the instance, one TAP on it for each running
// VM, and while there are such a few spare ones. Names are given, so undo needs nothing but the kernel.
//
// What it does happens in the network namespace of the calling thread.
package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Links holds the devices of one instance. Its methods may be called side by side.
type Links struct {
	tag    vm.Tag
	bridge string
	spares int           // how many TAPs are kept ready
	taken  chan struct{} // holds one word that a spare may be missing
	mu     sync.Mutex    // a bridge must not go while a TAP is about to join it
	used   bool          // a VM's TAP is on the bridge, as far as was seen
}

// New returns the devices of the instance with this tag, which keeps so many TAPs ready.
func New(tag vm.Tag, spares int) *Links {
	return &Links{tag: tag, bridge: tag.Bridge(), spares: spares, taken: make(chan struct{}, 1)}
}

// Prepare makes the VM's TAP, of a spare one if there is one, and the bridge where it is missing. The TAP is on the bridge, and down: a hypervisor can
// open it, and nothing passes. What exists already is put right.
func (l *Links) Prepare(ctx context.Context, lease vm.Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	master, err := ensureBridge(ctx, l.bridge, netip.PrefixFrom(lease.Gateway, lease.Address.Bits()))
	if err != nil {
		return explain("make bridge", l.bridge, err)
	}
	if err := ensureTAP(lease.TAP, master, l.takeOrCreate); err != nil {
		return explain("make TAP", lease.TAP, err)
	}
	l.used = true
	return nil
}

// Admit lets a TAP that is prepared onto the network.
func (l *Links) Admit(ctx context.Context, tap string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := setUp(tap); err != nil {
		return explain("bring up TAP", tap, err)
	}
	l.refill() // not before: it would make this VM wait for the kernel's one lock of all devices
	return nil
}

// Detach removes the TAP, and with the last one the bridge and the spare TAPs. Gone is success.
func (l *Links) Detach(ctx context.Context, tap string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := remove(tap); err != nil {
		return explain("remove TAP", tap, err)
	}
	ports, err := l.look(ctx)
	if err != nil {
		return explain("list ports of", l.bridge, err)
	}
	if l.used {
		return nil
	}
	return explain("remove bridge", l.bridge, removeAll(append(ports.spares, l.bridge)))
}

// TAPs names the TAPs that bear the instance's tag, whoever made them, but for the spare ones that are to be there.
func (l *Links) TAPs(ctx context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ports, err := l.look(ctx)
	if err != nil {
		return nil, explain("list devices", "", err)
	}
	names := ports.taps
	for _, name := range ports.spares {
		if n, _ := l.tag.MarksSpare(name); !l.used || n >= l.spares {
			names = append(names, name)
		}
	}
	return names, nil
}

// devices are those of the instance, as they were seen.
type devices struct{ taps, spares []string }

// look lists the instance's TAPs, and notes whether a port of its bridge is more than a spare one. l.mu is held.
func (l *Links) look(ctx context.Context) (devices, error) {
	var seen devices
	links, err := dump(ctx, netlink.LinkList)
	if err != nil {
		return seen, err
	}
	bridge := -1
	for _, link := range links {
		if link.Attrs().Name == l.bridge {
			bridge = link.Attrs().Index
		}
	}
	l.used = false
	for _, link := range links {
		name := link.Attrs().Name
		_, spare := l.tag.MarksSpare(name)
		switch {
		case spare && isTAP(link):
			seen.spares = append(seen.spares, name)
			continue
		case l.tag.Marks(name) && isTAP(link):
			seen.taps = append(seen.taps, name)
		}
		l.used = l.used || link.Attrs().MasterIndex == bridge
	}
	return seen, nil
}

// InUse lists the subnets that the host has addresses in or routes to, those of the instance's own
// bridge excepted, so that a subnet can be chosen that hides none of them.
func (l *Links) InUse(ctx context.Context) ([]netip.Prefix, error) {
	own := -1
	bridge, err := find(l.bridge)
	if err != nil {
		return nil, explain("find bridge", l.bridge, err)
	}
	if bridge != nil {
		own = bridge.Attrs().Index
	}
	addrs, err := dump(ctx, func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, explain("list addresses", "", err)
	}
	// The table 0 stands for all of them: a VPN may keep its routes in one of its own.
	routes, err := dump(ctx, func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, explain("list routes", "", err)
	}
	var used []netip.Prefix
	add := func(link int, n *net.IPNet) {
		if p, ok := prefix(n); ok && link != own && p.Bits() > 0 { // a default route claims no subnet
			used = append(used, p)
		}
	}
	for _, a := range addrs {
		add(a.LinkIndex, a.IPNet)
	}
	for _, r := range routes {
		add(r.LinkIndex, r.Dst)
	}
	return used, nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits).Masked(), ok
}

var errForeign = errors.New("another kind of device has this name")

// ensureBridge makes the bridge or puts it right. A bridge without STP forwards at once, so there is
// no delay to set. Its MAC is fixed, since a bridge otherwise takes a port's, and guests would see
// their gateway change.
func ensureBridge(ctx context.Context, name string, addr netip.Prefix) (netlink.Link, error) {
	mac := bridgeMAC(addr.Addr())
	bridge, err := find(name)
	if err != nil {
		return nil, err
	}
	if bridge == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = name, mac
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return nil, err
		}
		if bridge, err = netlink.LinkByName(name); err != nil {
			return nil, err
		}
	}
	if bridge.Type() != "bridge" {
		return nil, fmt.Errorf("%w: %s", errForeign, bridge.Type())
	}
	if bridge.Attrs().HardwareAddr.String() != mac.String() {
		if err := netlink.LinkSetHardwareAddr(bridge, mac); err != nil {
			return nil, err
		}
	}
	if err := learnNoLinkLocal(bridge); err != nil {
		return nil, err
	}
	if err := disableIPv6(name); err != nil {
		return nil, err
	}
	if err := onlyAddress(ctx, bridge, addr); err != nil {
		return nil, err
	}
	return bridge, netlink.LinkSetUp(bridge)
}

// bridgeMAC derives a locally administered address from the bridge's IP address.
func bridgeMAC(addr netip.Addr) net.HardwareAddr {
	b := addr.As4()
	return net.HardwareAddr{0x02, 0xba, b[0], b[1], b[2], b[3]}
}

// onlyAddress gives the link this IPv4 address and takes all others.
func onlyAddress(ctx context.Context, link netlink.Link, want netip.Prefix) error {
	have, err := dump(ctx, func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return err
	}
	found := false
	for _, a := range have {
		if a.IPNet.String() == want.String() {
			found = true
		} else if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
	}
	if found {
		return nil
	}
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{
		IP: want.Addr().AsSlice(), Mask: net.CIDRMask(want.Bits(), want.Addr().BitLen()),
	}})
}

// ensureTAP makes the TAP or puts it right. It is down: what its guest writes to it is refused until it is up.
func ensureTAP(name string, master netlink.Link, create func(name string) error) error {
	tap, err := find(name)
	if err != nil {
		return err
	}
	if tap == nil {
		if err := create(name); err != nil {
			return err
		}
		if tap, err = netlink.LinkByName(name); err != nil {
			return err
		}
	}
	if !isTAP(tap) {
		return fmt.Errorf("%w: %s", errForeign, tap.Type())
	}
	if tap.Attrs().Flags&net.FlagUp != 0 {
		if err := netlink.LinkSetDown(tap); err != nil {
			return err
		}
	}
	if err := disableIPv6(name); err != nil {
		return err
	}
	if tap.Attrs().MasterIndex != master.Attrs().Index {
		if err := netlink.LinkSetMaster(tap, master); err != nil {
			return err
		}
	}
	return nil
}

func setUp(name string) error {
	tap, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(tap)
}

func isTAP(link netlink.Link) bool { return link.Type() == "tuntap" || link.Type() == "tun" }

// disableIPv6 keeps the host from hearing IPv6 on a device that guests write to: a router
// advertisement from one would otherwise change the host's own routes. A kernel without IPv6 has no
// such setting.
func disableIPv6(name string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// find returns the link of this name, nil when there is none.
func find(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil, nil //nolint:nilnil // no link is an answer, not a failure
	}
	return l, err
}

func remove(name string) error {
	l, err := find(name)
	if err != nil || l == nil {
		return err
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// removeAll removes devices side by side: for each the kernel waits until nothing of it is in use, most of that time
// without its lock of all devices. Gone is success.
func removeAll(names []string) error {
	var eg errgroup.Group
	for _, name := range names {
		device, err := find(name)
		if err != nil {
			return errors.Join(err, eg.Wait())
		}
		if device == nil {
			continue
		}
		// A socket of its own, opened here: it belongs to this thread's network namespace.
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return errors.Join(err, eg.Wait())
		}
		eg.Go(func() error {
			defer h.Close()
			if err := h.LinkDel(device); err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	return eg.Wait()
}

// dump repeats a listing that the kernel says was interrupted by a change.
func dump[T any](ctx context.Context, list func() ([]T, error)) ([]T, error) {
	for {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// explain says what a failure means; nil stays nil.
func explain(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	e := fault.New(fault.Internal, "%w", err).WithOp(op, subject)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Code = fault.Requirement
		return e.WithHint("run the daemon as root, or with the capability CAP_NET_ADMIN")
	case errors.Is(err, unix.EROFS):
		e.Code = fault.Requirement
		return e.WithHint("make /proc/sys writable: in a container, run it privileged")
	case errors.Is(err, errNoTUN):
		e.Code = fault.Requirement
		return e.WithHint("load the module: `sudo modprobe tun`; in a container, pass the device in")
	case errors.Is(err, unix.EXFULL): // its BR_MAX_PORTS, less the one that is none
		e.Code = fault.Exhausted
		return e.WithHint("a bridge has 1,023 ports, one for each running VM: stop some")
	case errors.Is(err, errForeign):
		e.Code = fault.AlreadyExists
		return e.WithHint("look at it with `ip -d link show %s`, and remove it if nothing needs it", subject)
	}
	return e.WithHint("look at the host's devices with `ip -d link`, and at `dmesg`")
}
