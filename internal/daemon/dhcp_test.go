package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDHCP(t *testing.T) {
	d := naming(t, netip.MustParseAddrPort("127.0.0.1:42069"))
	d.tag = "ab12"
	c := d.dhcp(t.Context())
	for device, want := range map[string]bool{"banger-ab12": true, "banger-ab12-3": true, "banger-cd34": false, "docker0": false} {
		if c.Bridge(device) != want {
			t.Errorf("%s: %v", device, !want)
		}
	}
	for text, want := range map[string]string{"02:ba:0a:df:00:02": "10.223.0.2/22 dev", "02:ba:0a:df:00:03": "", "52:54:00:12:34:56": ""} {
		mac, err := net.ParseMAC(text)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if l, name, ok := c.Lease(mac); ok {
			got = l.Address.String() + " " + name
		}
		if got != want {
			t.Errorf("%s has %q, want %q", text, got, want)
		}
	}
	listed := func() (out []string) {
		for _, l := range d.listeners.list() {
			out = append(out, l.Name+" "+l.Address+" "+l.Error)
		}
		return out
	}
	c.Began("banger-ab12", nil)
	c.Began("banger-ab12-1", fmt.Errorf("bind: %w", syscall.EADDRINUSE))
	if d := cmp.Diff([]string{"dhcp banger-ab12 ", `dhcp banger-ab12-1 listen on "0.0.0.0:67": another program has that port`}, listed()); d != "" {
		t.Error(d)
	}
	c.Ended("banger-ab12")
	c.Ended("banger-ab12-1")
	if got := listed(); got != nil {
		t.Errorf("left: %q", got)
	}
}
