// Package resolver has this host's own resolver ask the daemon for names of VMs: systemd-resolved or NetworkManager's dnsmasq, by what
// they offer for it. What it changes it changes back.
package resolver

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/godbus/dbus/v5"

	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

// Kind is what resolves names on the host.
type Kind string

// The kinds that can be wired.
const (
	Resolved       Kind = "systemd-resolved"
	NetworkManager Kind = "NetworkManager"
)

// Wiring is how the host's resolver was told of the daemon, and what it takes to take that back.
type Wiring struct {
	Kind    Kind `json:"kind"`
	MadeDir bool `json:"made_dir,omitempty"` // the directory of NetworkManager's file
}

// Host is the one that this runs on.
type Host struct {
	Root string // of the file system
	Tag  vm.Tag // of the instance
}

// Steps says what Apply does.
func (h Host) Steps(w Wiring, server netip.AddrPort) []string {
	if w.Kind == Resolved {
		return []string{fmt.Sprintf("systemd-resolved asks %s for names below %s, while a bridge %s is there", server, network.Domain, h.Tag.Bridge(0))}
	}
	return []string{
		fmt.Sprintf("write %s: %s", h.file(), rule(server)),
		"NetworkManager starts its dnsmasq anew",
	}
}

// UndoSteps says what Undo does.
func (h Host) UndoSteps(w Wiring) []string {
	if w.Kind == Resolved {
		return []string{"systemd-resolved forgets what it was told of bridges " + h.Tag.Bridge(0)}
	}
	steps := []string{"remove " + h.file(), "NetworkManager starts its dnsmasq anew"}
	if w.MadeDir {
		steps[0] += " and its directory"
	}
	return steps
}

// Choose finds what there is to be wired, and refuses where names below .vm are somebody else's already.
func (h Host) Choose(ctx context.Context, server netip.AddrPort) (Wiring, error) {
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return Wiring{}, h.missing(server)
	}
	defer bus.Close()
	if running(ctx, bus, resolvedName) && h.asksResolved() {
		return Wiring{Kind: Resolved}, h.routedByResolved(ctx, bus)
	}
	if running(ctx, bus, managerName) && dnsMode(ctx, bus) == "dnsmasq" {
		dir, err := h.dirIsThere()
		if err != nil {
			return Wiring{}, err
		}
		return Wiring{Kind: NetworkManager, MadeDir: !dir}, h.routedByFiles()
	}
	return Wiring{}, h.missing(server)
}

// missing says how it is done by hand.
func (h Host) missing(server netip.AddrPort) error {
	return fault.New(fault.Requirement, "this host's programs ask neither systemd-resolved nor NetworkManager's dnsmasq").WithOp("set up names", "").
		WithHint("have the resolver that is in /etc/resolv.conf ask %s for the domain %s; with dnsmasq, add the line %q to its configuration", server, network.Domain, rule(server))
}

func running(ctx context.Context, bus *dbus.Conn, name string) bool {
	var has bool
	err := bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, name).Store(&has)
	return err == nil && has
}

// Apply wires it. In effect is false where that waits for the first VM.
func (h Host) Apply(ctx context.Context, w Wiring, server netip.AddrPort) (effect bool, err error) {
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return false, explain(err, w.Kind)
	}
	defer bus.Close()
	if w.Kind == Resolved {
		return h.applyResolved(ctx, bus, server)
	}
	return true, h.applyFile(ctx, bus, server)
}

// Undo takes it back. What is gone already is success.
func (h Host) Undo(ctx context.Context, w Wiring) error {
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		if w.Kind == Resolved { // it has gone with all that it was told
			return nil
		}
		return h.removeFile(ctx, nil, w)
	}
	defer bus.Close()
	if w.Kind == Resolved {
		return h.undoResolved(ctx, bus)
	}
	return h.removeFile(ctx, bus, w)
}

// Resolve asks for a name as the host's programs do.
func (h Host) Resolve(ctx context.Context, w Wiring, name string) ([]netip.Addr, error) {
	if w.Kind == NetworkManager {
		return h.askStub(ctx, name)
	}
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return nil, explain(err, w.Kind)
	}
	defer bus.Close()
	return askResolved(ctx, bus, name)
}

func explain(err error, kind Kind) error {
	if err == nil {
		return nil
	}
	return fault.New(fault.Unavailable, "%s does not do it: %w", kind, err).WithOp("set up names", "").WithHint("see whether it runs: systemctl status %s", kind)
}
