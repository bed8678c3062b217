package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/network"
)

const (
	resolvedName  = "org.freedesktop.resolve1"
	resolvedPath  = "/org/freedesktop/resolve1"
	resolvedCalls = "org.freedesktop.resolve1.Manager."
)

// asksResolved reports whether the host's programs ask systemd-resolved, by its stub or by its module for the C library: that it runs is
// not enough.
func (h Host) asksResolved() bool {
	conf, _ := os.ReadFile(filepath.Join(h.Root, "etc/resolv.conf"))
	nss, _ := os.ReadFile(filepath.Join(h.Root, "etc/nsswitch.conf"))
	return asksStub(string(conf)) || hasModule(string(nss))
}

func asksStub(conf string) bool {
	for line := range strings.Lines(conf) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			return f[1] == "127.0.0.53" || f[1] == "127.0.0.54" // the first is asked before the others
		}
	}
	return false
}

func hasModule(nss string) bool {
	for line := range strings.Lines(nss) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "hosts:" {
			return slices.Contains(f[1:], "resolve")
		}
	}
	return false
}

// domain is an entry of the Manager's property Domains.
type domain struct {
	Index   int32
	Name    string
	Routing bool
}

// routedByResolved refuses where another link, or the configuration, has the domain.
func (h Host) routedByResolved(ctx context.Context, bus *dbus.Conn) error {
	var all []domain
	v, err := property(ctx, bus, resolvedName, resolvedPath, "org.freedesktop.resolve1.Manager", "Domains")
	if err == nil {
		err = v.Store(&all)
	}
	if err != nil {
		return explain(err, Resolved)
	}
	bridges, err := h.bridges()
	if err != nil {
		return err
	}
	who := holder(all, bridges, func(index int) string {
		if i, err := net.InterfaceByIndex(index); err == nil {
			return i.Name
		}
		return fmt.Sprintf("number %d", index)
	})
	if who == "" {
		return nil
	}
	return fault.New(fault.InUse, "systemd-resolved asks %s for names below %s", who, network.Domain).WithOp("set up names", "").
		WithHint("see `resolvectl domain`, and take the domain from there; it can be one's only")
}

// holder names who but these links has the domain; "" is nobody.
func holder(all []domain, ours map[int]string, name func(index int) string) string {
	for _, d := range all {
		if strings.TrimSuffix(strings.ToLower(d.Name), ".") != network.Domain {
			continue
		}
		if d.Index == 0 {
			return "the servers of its own configuration"
		}
		if ours[int(d.Index)] == "" {
			return "the servers of the link " + name(int(d.Index))
		}
	}
	return ""
}

func property(ctx context.Context, bus *dbus.Conn, service, path, iface, name string) (dbus.Variant, error) {
	var v dbus.Variant
	err := bus.Object(service, dbus.ObjectPath(path)).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, name).Store(&v)
	return v, err
}

// bridges are the instance's that are there, by index.
func (h Host) bridges() (map[int]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fault.System(err, "look at network devices", "")
	}
	ours := map[int]string{}
	for _, i := range all {
		if _, ok := h.Tag.MarksBridge(i.Name); ok {
			ours[i.Index] = i.Name
		}
	}
	return ours, nil
}

// settle bounds the wait until systemd-resolved knows a link that the kernel has.
const settle = 5 * time.Second

// applyResolved has the links of the bridges ask the daemon, for the domain and nothing else. That goes with the link.
func (h Host) applyResolved(ctx context.Context, bus *dbus.Conn, server netip.AddrPort) (bool, error) {
	bridges, err := h.bridges()
	if err != nil {
		return false, err
	}
	for index := range bridges {
		if err := route(ctx, bus, index, server); err != nil {
			return false, err
		}
	}
	return len(bridges) > 0, nil
}

type linkServer struct {
	Family  int32
	Address []byte
	Port    uint16
	Name    string
}

type linkDomain struct {
	Name    string
	Routing bool
}

func route(ctx context.Context, bus *dbus.Conn, index int, server netip.AddrPort) error {
	family := int32(unix.AF_INET)
	if server.Addr().Is6() {
		family = unix.AF_INET6
	}
	for _, c := range []struct {
		method string
		args   []any
	}{
		{"SetLinkDNSEx", []any{[]linkServer{{family, server.Addr().AsSlice(), server.Port(), ""}}}},
		{"SetLinkDomains", []any{[]linkDomain{{network.Domain, true}}}},
		{"SetLinkDefaultRoute", []any{false}},
		// Whatever the host demands of others: it is on the loopback, and the root of all names knows nothing of the domain.
		{"SetLinkDNSSEC", []any{"no"}},
		{"SetLinkDNSOverTLS", []any{"no"}},
	} {
		if err := call(ctx, bus, c.method, append([]any{int32(index)}, c.args...)...); err != nil {
			return explain(err, Resolved)
		}
	}
	return nil
}

// call asks systemd-resolved, again while it does not know the link yet.
func call(ctx context.Context, bus *dbus.Conn, method string, args ...any) error {
	for until := time.Now().Add(settle); ; {
		err := bus.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedCalls+method, 0, args...).Err
		if !isError(err, "org.freedesktop.resolve1.NoSuchLink") || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func isError(err error, name string) bool {
	e, ok := errors.AsType[dbus.Error](err)
	return ok && e.Name == name
}

// undoResolved leaves the links as they were when they came: nobody but us says anything of them.
func (h Host) undoResolved(ctx context.Context, bus *dbus.Conn) error {
	if !running(ctx, bus, resolvedName) {
		return nil
	}
	bridges, err := h.bridges()
	if err != nil {
		return err
	}
	for index := range bridges {
		err := bus.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedCalls+"RevertLink", 0, int32(index)).Err
		if err != nil && !isError(err, "org.freedesktop.resolve1.NoSuchLink") {
			return explain(err, Resolved)
		}
	}
	return nil
}

func askResolved(ctx context.Context, bus *dbus.Conn, name string) ([]netip.Addr, error) {
	var found []struct {
		Index   int32
		Family  int32
		Address []byte
	}
	var canonical string
	var flags uint64
	err := bus.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedCalls+"ResolveHostname", 0, int32(0), name, int32(unix.AF_INET), uint64(0)).
		Store(&found, &canonical, &flags)
	if err != nil {
		return nil, explain(err, Resolved)
	}
	var out []netip.Addr
	for _, f := range found {
		if a, ok := netip.AddrFromSlice(f.Address); ok {
			out = append(out, a)
		}
	}
	return out, nil
}
