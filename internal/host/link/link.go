// Package link makes and removes the network devices of VMs: a bridge for each block of the instance's subnet that has a
// running VM, one TAP on it for each of those, and while there are such on the first a few spare ones. Names are given, so undo needs nothing but the kernel.
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
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

// Links holds the devices of one instance. Its methods may be called side by side.
type Links struct {
	tag    vm.Tag
	spares int             // how many TAPs are kept ready
	taken  chan struct{}   // holds one word that a spare may be missing
	mu     sync.Mutex      // a bridge must not go while a TAP is about to join it
	used   map[string]bool // the bridges that a VM's TAP is on, as far as was seen
}

// New returns the devices of the instance with this tag, which keeps so many TAPs ready.
func New(tag vm.Tag, spares int) *Links {
	return &Links{tag: tag, spares: spares, taken: make(chan struct{}, 1), used: map[string]bool{}}
}

// Prepare makes the VM's TAP, of a spare one if there is one, and its bridge where that is missing. The TAP is on the bridge, and down: a hypervisor can
// open it, and nothing passes. What exists already is put right.
func (l *Links) Prepare(ctx context.Context, lease vm.Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, ours := l.tag.MarksBridge(lease.Bridge); !ours {
		return explain("make bridge", lease.Bridge, errors.New("its name is not one of this instance's"))
	}
	master, err := l.ensureBridge(ctx, lease)
	if err != nil {
		return explain("make bridge", lease.Bridge, err)
	}
	if err := ensureTAP(lease.TAP, master, l.takeOrCreate); err != nil {
		return explain("make TAP", lease.TAP, err)
	}
	l.used[lease.Bridge] = true
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

// Detach removes the TAP, and every bridge that has no VM's any more, the spare TAPs with the first one. Gone is success.
func (l *Links) Detach(ctx context.Context, tap string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := remove(tap); err != nil {
		return explain("remove TAP", tap, err)
	}
	seen, err := l.look(ctx)
	if err != nil {
		return explain("list devices", "", err)
	}
	idle := slices.DeleteFunc(seen.bridges, func(name string) bool { return l.used[name] })
	if !l.used[l.tag.Bridge(0)] {
		idle = append(seen.spares, idle...)
	}
	return explain("remove", strings.Join(idle, ", "), removeAll(idle))
}

// TAPs names the TAPs that bear the instance's tag, whoever made them, but for the spare ones that are to be there.
func (l *Links) TAPs(ctx context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen, err := l.look(ctx)
	if err != nil {
		return nil, explain("list devices", "", err)
	}
	names := seen.taps
	for _, name := range seen.spares {
		if n, _ := l.tag.MarksSpare(name); !l.used[l.tag.Bridge(0)] || n >= l.spares {
			names = append(names, name)
		}
	}
	return names, nil
}

// devices are those of the instance, as they were seen.
type devices struct{ taps, spares, bridges []string }

// look lists the instance's devices, and notes on which of its bridges a port is more than a spare one. l.mu is held.
func (l *Links) look(ctx context.Context) (devices, error) {
	var seen devices
	links, err := dump(ctx, netlink.LinkList)
	if err != nil {
		return seen, err
	}
	bridges := map[int]string{}
	for _, link := range links {
		if name := link.Attrs().Name; l.isBridge(link) {
			bridges[link.Attrs().Index] = name
			seen.bridges = append(seen.bridges, name)
		}
	}
	clear(l.used)
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
		if bridge, ok := bridges[link.Attrs().MasterIndex]; ok {
			l.used[bridge] = true
		}
	}
	return seen, nil
}

// isBridge reports whether a device is a bridge of the instance.
func (l *Links) isBridge(link netlink.Link) bool {
	_, ours := l.tag.MarksBridge(link.Attrs().Name)
	return ours && link.Type() == "bridge"
}

// InUse lists what the host has addresses in or routes to, but for the instance's own
// bridges, so that a subnet can be chosen that hides none of it.
func (l *Links) InUse(ctx context.Context) ([]network.Claim, error) {
	links, err := dump(ctx, netlink.LinkList)
	if err != nil {
		return nil, explain("list devices", "", err)
	}
	names, own := map[int]string{}, map[int]bool{}
	for _, link := range links {
		names[link.Attrs().Index], own[link.Attrs().Index] = link.Attrs().Name, l.isBridge(link)
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
	var used []network.Claim
	add := func(link int, n *net.IPNet) {
		if p, ok := prefix(n); ok && !own[link] && p.Bits() > 0 { // a default route claims no subnet
			used = append(used, network.Claim{Prefix: p, Device: names[link]})
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

// Busy reports whether a VM is on a bridge of the instance.
func (l *Links) Busy(ctx context.Context) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.look(ctx)
	return len(l.used) > 0, explain("list devices", "", err)
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

// ensureBridge makes a lease's bridge or puts it right. A bridge without STP forwards at once, so there is
// no delay to set. Its MAC is fixed, since a bridge otherwise takes a port's, and guests would see
// their gateway change.
//
// Where the subnet has been moved, VMs that run have the gateway of before: it stays, with its MAC, as long as they do.
func (l *Links) ensureBridge(ctx context.Context, lease vm.Lease) (netlink.Link, error) {
	name, mac := lease.Bridge, bridgeMAC(lease.Gateway)
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
	shared := sync.OnceValues(func() (bool, error) { return l.shared(ctx, bridge, lease.TAP) })
	if bridge.Attrs().HardwareAddr.String() != mac.String() {
		if keep, err := shared(); err != nil {
			return nil, err
		} else if !keep {
			if err := netlink.LinkSetHardwareAddr(bridge, mac); err != nil {
				return nil, err
			}
		}
	}
	if err := learnNoLinkLocal(bridge); err != nil {
		return nil, err
	}
	if err := ensureAddress(ctx, bridge, netip.PrefixFrom(lease.Gateway, lease.Address.Bits()), shared); err != nil {
		return nil, err
	}
	if err := ensureIPv6(ctx, bridge, lease, shared); err != nil {
		return nil, err
	}
	return bridge, netlink.LinkSetUp(bridge)
}

// ensureIPv6 gives the bridge its IPv6 address, where the host's kernel has IPv6 and the lease has one. It hears no
// routers: an advertisement by a guest would otherwise change the host's own routes.
func ensureIPv6(ctx context.Context, bridge netlink.Link, lease vm.Lease, shared func() (bool, error)) error {
	name := bridge.Attrs().Name
	if !lease.Address6.IsValid() {
		return disableIPv6(name)
	}
	for _, s := range []struct{ key, value string }{
		{"accept_ra", "0"},
		{"accept_redirects", "0"},
		{"accept_dad", "0"}, // nobody else has its addresses, and to ask takes a second in which they cannot be used
		{"disable_ipv6", "0"},
	} {
		if err := setIPv6(name, s.key, s.value); err != nil {
			return err
		}
	}
	if _, err := os.Stat(ipv6Conf); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return ensureAddress(ctx, bridge, netip.PrefixFrom(lease.Gateway6, lease.Address6.Bits()), shared)
}

// shared reports whether another VM's TAP is on a bridge.
func (l *Links) shared(ctx context.Context, bridge netlink.Link, tap string) (bool, error) {
	links, err := dump(ctx, netlink.LinkList)
	return slices.ContainsFunc(links, func(port netlink.Link) bool {
		name := port.Attrs().Name
		_, spare := l.tag.MarksSpare(name)
		return port.Attrs().MasterIndex == bridge.Attrs().Index && name != tap && !spare
	}), err
}

// bridgeMAC derives a locally administered address from the bridge's IP address.
func bridgeMAC(addr netip.Addr) net.HardwareAddr {
	b := addr.As4()
	return net.HardwareAddr{0x02, 0xba, b[0], b[1], b[2], b[3]}
}

// ensureAddress gives the link this address and takes all others of its family, unless somebody may need those, but for
// what the kernel itself gives.
func ensureAddress(ctx context.Context, link netlink.Link, want netip.Prefix, needed func() (bool, error)) error {
	family, flags := netlink.FAMILY_V4, 0
	if want.Addr().Is6() {
		family, flags = netlink.FAMILY_V6, unix.IFA_F_NODAD
	}
	have, err := dump(ctx, func() ([]netlink.Addr, error) { return netlink.AddrList(link, family) })
	if err != nil {
		return err
	}
	found := false
	for _, a := range have {
		if a.IPNet.String() == want.String() {
			found = true
			continue
		}
		if a.IP.IsLinkLocalUnicast() && want.Addr().Is6() {
			continue
		}
		if keep, err := needed(); err != nil {
			return err
		} else if keep {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
	}
	if found {
		return nil
	}
	return netlink.AddrAdd(link, &netlink.Addr{Flags: flags, IPNet: &net.IPNet{
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
	// Nor is ARP for the host to hear here, which frames to link-local groups would bring past the bridge: a guest could fill
	// the table of neighbours that the whole host has.
	if tap.Attrs().RawFlags&unix.IFF_NOARP == 0 {
		if err := netlink.LinkSetARPOff(tap); err != nil {
			return err
		}
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
// advertisement from one would otherwise change the host's own routes.
func disableIPv6(name string) error { return setIPv6(name, "disable_ipv6", "1") }

const ipv6Conf = "/proc/sys/net/ipv6/conf/"

// setIPv6 makes a setting of a device, which a kernel without IPv6 has not.
func setIPv6(name, key, value string) error {
	err := os.WriteFile(ipv6Conf+name+"/"+key, []byte(value), 0)
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
