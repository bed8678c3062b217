package resolver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/miekg/dns"

	"banger/internal/fault"
	"banger/internal/network"
)

const (
	managerName = "org.freedesktop.NetworkManager"
	managerPath = "/org/freedesktop/NetworkManager"
	managerDir  = "etc/NetworkManager/dnsmasq.d"
)

// dnsMode is what NetworkManager leaves names to; "" where it does not say.
func dnsMode(ctx context.Context, bus *dbus.Conn) (mode string) {
	v, err := property(ctx, bus, managerName, managerPath+"/DnsManager", managerName+".DnsManager", "Mode")
	if err == nil {
		_ = v.Store(&mode)
	}
	return mode
}

// file is what NetworkManager's dnsmasq reads.
func (h Host) file() string {
	return filepath.Join(h.Root, managerDir, "banger-"+string(h.Tag)+".conf")
}

// rule has dnsmasq ask a server for the domain.
func rule(server netip.AddrPort) string {
	return fmt.Sprintf("server=/%s/%s#%d", network.Domain, server.Addr(), server.Port())
}

func (h Host) dirIsThere() (bool, error) {
	_, err := os.Stat(filepath.Dir(h.file()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, fault.System(err, "set up names in", filepath.Dir(h.file()))
}

// routedByFiles refuses where another file of NetworkManager's dnsmasq has the domain.
func (h Host) routedByFiles() error {
	files, err := filepath.Glob(filepath.Join(filepath.Dir(h.file()), "*"))
	if err != nil {
		return err
	}
	for _, path := range files {
		text, err := os.ReadFile(filepath.Clean(path))
		if path == h.file() || err != nil { // nor can dnsmasq read it
			continue
		}
		if line := ruling(string(text)); line != "" {
			return fault.New(fault.InUse, "names below %s are another's already: %s", network.Domain, line).WithOp("set up names beside", path).
				WithHint("take that line away; the domain can be one's only")
		}
	}
	return nil
}

// ruling finds the line of a dnsmasq configuration that has the domain; "" is none.
func ruling(text string) string {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "server", "local", "address":
			parts := strings.Split(value, "/")
			for i := 1; i < len(parts)-1; i++ {
				if strings.EqualFold(strings.Trim(parts[i], "."), network.Domain) {
					return strings.TrimSpace(line)
				}
			}
		}
	}
	return ""
}

func (h Host) applyFile(ctx context.Context, bus *dbus.Conn, server netip.AddrPort) error {
	text := "# By bangerd; `banger dns undo` removes it.\n" + rule(server) + "\n"
	if was, err := os.ReadFile(h.file()); err == nil && string(was) == text {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(h.file()), 0o755); err != nil { //nolint:gosec // as NetworkManager's package has it
		return fault.System(err, "set up names in", filepath.Dir(h.file()))
	}
	if err := os.WriteFile(h.file(), []byte(text), 0o644); err != nil { //nolint:gosec // dnsmasq reads it as another user
		return fault.System(err, "set up names in", h.file())
	}
	return restartDnsmasq(ctx, bus)
}

func restartDnsmasq(ctx context.Context, bus *dbus.Conn) error {
	const dnsFull = uint32(4)
	return explain(bus.Object(managerName, managerPath).CallWithContext(ctx, managerName+".Reload", 0, dnsFull).Err, NetworkManager)
}

func (h Host) removeFile(ctx context.Context, bus *dbus.Conn, w Wiring) error {
	err := os.Remove(h.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && w.MadeDir {
		if err = os.Remove(filepath.Dir(h.file())); errors.Is(err, fs.ErrExist) { // somebody else uses it by now
			err = nil
		}
	}
	if err != nil {
		return fault.System(err, "take names back from", h.file())
	}
	if bus != nil && running(ctx, bus, managerName) {
		return restartDnsmasq(ctx, bus)
	}
	return nil
}

// askStub asks the server that programs ask.
func (h Host) askStub(ctx context.Context, name string) ([]netip.Addr, error) {
	conf, err := dns.ClientConfigFromFile(filepath.Join(h.Root, "etc/resolv.conf"))
	if err != nil || len(conf.Servers) == 0 {
		return nil, fault.New(fault.Unavailable, "it names no server").WithOp("ask what is in", "/etc/resolv.conf")
	}
	m, err := dns.ExchangeContext(ctx, new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), net.JoinHostPort(conf.Servers[0], conf.Port))
	if err != nil {
		return nil, explain(err, NetworkManager)
	}
	var out []netip.Addr
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out, nil
}
