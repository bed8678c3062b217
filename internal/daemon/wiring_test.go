package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/host/resolver"
	"banger/internal/vm"
)

// TestSettingUpNamesOnAHostWithoutAResolver: what a bus and its programs say is for the lab.
func TestSettingUpNamesOnAHostWithoutAResolver(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	d := naming(t, netip.MustParseAddrPort("127.0.0.1:42069"))
	server := netip.AddrPort{}
	w := &wiring{host: resolver.Host{Root: t.TempDir(), Tag: "ab12"}, store: d.store, server: func() netip.AddrPort { return server }, log: d.log}
	w.start(t.Context())
	defer w.end()
	fails := func(what string, err error, code fault.Code, text string) {
		t.Helper()
		if !fault.Is(err, code) || !strings.Contains(err.Error(), text) || fault.From(err).Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := w.setUp(t.Context(), vm.Caller{UID: 1000}, false, nil)
	fails("not by root", err, fault.Forbidden, "only root may")
	_, err = w.undo(t.Context(), vm.Caller{UID: 1000}, false)
	fails("not by root", err, fault.Forbidden, "only root may")
	_, err = w.setUp(t.Context(), vm.Caller{}, false, nil)
	fails("without a port", err, fault.Unavailable, "no port of the loopback")
	server = netip.MustParseAddrPort("127.0.0.1:42070")
	_, err = w.setUp(t.Context(), vm.Caller{}, true, nil)
	fails("without a resolver", err, fault.Requirement, "neither systemd-resolved nor NetworkManager")

	if now, err := w.look(t.Context(), nil); err != nil || now.Server != "127.0.0.1:42070" || now.Wiring != "" {
		t.Errorf("%+v, %v", now, err)
	}
	if done, err := w.undo(t.Context(), vm.Caller{}, false); err != nil || !done.Done || len(done.Steps) > 0 {
		t.Errorf("nothing to undo: %+v, %v", done, err)
	}

	// What was set up while there was one is undone without it.
	is := resolver.Wiring{Kind: resolver.Resolved}
	if err := d.store.SetWiring(t.Context(), is); err != nil {
		t.Fatal(err)
	}
	vms := []vm.VM{{Name: "off"}, {Name: "dev", State: vm.Running, Lease: vm.Lease{Address: netip.MustParsePrefix("10.223.0.2/22")}}}
	now, err := w.look(t.Context(), vms)
	if err != nil || now.Wiring != "systemd-resolved" || now.Proof == nil || now.Proof.Name != "dev.vm" || now.Proof.Address != "10.223.0.2" || now.Proof.Error == nil {
		t.Errorf("%+v, %v", now, err)
	}
	if done, err := w.undo(t.Context(), vm.Caller{}, true); err != nil || done.Done || len(done.Steps) != 1 || done.DNS.Wiring == "" {
		t.Errorf("dry: %+v, %v", done, err)
	}
	if done, err := w.undo(t.Context(), vm.Caller{}, false); err != nil || !done.Done || done.DNS.Wiring != "" {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestWhereANameLeadsInstead(t *testing.T) {
	if got := elsewhere(nil).Msg; got != "the host's resolver has no address of it" {
		t.Error(got)
	}
	one, two := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::1")
	if got := elsewhere([]netip.Addr{one, two}).Msg; got != "the host's resolver has it at 203.0.113.7, 2001:db8::1" {
		t.Error(got)
	}
}
