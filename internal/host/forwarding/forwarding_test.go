package forwarding_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"banger/internal/host/forwarding"
	"banger/internal/host/sysctl"
	"banger/internal/netnstest"
)

// memory is a store's.
type memory struct {
	were map[string]string
	fail error
}

func (m *memory) Sysctls(context.Context) (map[string]string, error) { return m.were, nil }

func (m *memory) SetSysctls(_ context.Context, were map[string]string) error {
	if m.fail == nil {
		m.were = were
	}
	return m.fail
}

// inNamespace runs the test in a network namespace with a device that has its addresses by router advertisements.
func inNamespace(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	netnstest.In(t, func(t *testing.T) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "uplink"
		err := errors.Join(
			sysctl.Set("net/ipv4/ip_forward", "0"),
			sysctl.Set("net/ipv6/conf/all/forwarding", "0"),
			netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}),
			sysctl.Set("net/ipv6/conf/uplink/accept_ra", "1"),
			sysctl.Set("net/ipv6/conf/lo/forwarding", "1"),
		)
		if err != nil {
			t.Error(err)
			return
		}
		test(t)
	})
}

// settings are those that matter here.
func settings(t *testing.T) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, name := range []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/forwarding", "net/ipv6/conf/default/accept_ra",
		"net/ipv6/conf/uplink/forwarding", "net/ipv6/conf/uplink/accept_ra", "net/ipv6/conf/lo/forwarding",
	} {
		value, err := sysctl.Get(name)
		if err != nil {
			t.Error(err)
		}
		got[name] = value
	}
	return got
}

func TestSetWhenNeededAndPutBack(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		before := settings(t)
		m := &memory{}
		f := forwarding.New(m)
		if err := f.Need(t.Context(), false, false); err != nil || m.were != nil {
			t.Errorf("what nobody needs: %v, %v", m.were, err)
		}
		if err := f.Need(t.Context(), true, false); err != nil {
			t.Error(err)
		}
		if !forwarding.On(netip.MustParseAddr("203.0.113.1")) || forwarding.On(netip.MustParseAddr("2001:db8::1")) {
			t.Error("it is on by IPv4, and off by IPv6")
		}
		want := maps.Clone(before)
		want["net/ipv4/ip_forward"] = "1"
		if d := cmp.Diff(want, settings(t)); d != "" {
			t.Error(d)
		}
		// A daemon that comes back knows.
		f = forwarding.New(m)
		if err := f.Need(t.Context(), true, true); err != nil {
			t.Error(err)
		}
		got := settings(t)
		if got["net/ipv6/conf/uplink/forwarding"] != "1" || got["net/ipv6/conf/uplink/accept_ra"] != "2" {
			t.Errorf("%v: the uplink would lose its routes", got)
		}
		if err := f.Need(t.Context(), true, true); err != nil {
			t.Error(err)
		}
		if _, err := f.Restore(t.Context(), false); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(before, settings(t)); d != "" || len(m.were) > 0 {
			t.Errorf("%s\n%v", d, m.were)
		}
	})
}

func TestWhatIsNotRememberedIsNotChanged(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		before := settings(t)
		f := forwarding.New(&memory{fail: errors.New("disk full")})
		if err := f.Need(t.Context(), true, true); err == nil {
			t.Error("no error")
		}
		if d := cmp.Diff(before, settings(t)); d != "" {
			t.Error(d)
		}
	})
}

func TestWhatOthersNeedStays(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		m := &memory{}
		f := forwarding.New(m)
		if err := f.Need(t.Context(), true, false); err != nil {
			t.Error(err)
		}
		restored, err := f.Restore(t.Context(), true)
		if settings(t)["net/ipv4/ip_forward"] != "1" || len(restored) > 0 || len(m.were) > 0 || err != nil {
			t.Errorf("restored %v, %v", restored, err)
		}
	})
}
