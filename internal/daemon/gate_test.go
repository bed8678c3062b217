package daemon

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/host/exec"
	"banger/internal/host/firewall"
	"banger/internal/host/firewall/others"
	"banger/internal/host/forwarding"
	"banger/internal/host/sysctl"
	"banger/internal/netnstest"
	"banger/internal/network"
	"banger/internal/store"
)

func newGate(t *testing.T) *gate {
	s, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &gate{
		tables: firewall.New("ab12"), others: others.New("ab12", exec.Runner{}, t.TempDir()), forwarding: forwarding.New(s),
		log: slog.New(slog.DiscardHandler),
	}
}

func forwardsNow(t *testing.T, want string) {
	t.Helper()
	if got, err := sysctl.Get("net/ipv4/ip_forward"); err != nil || got != want {
		t.Errorf("the kernel's forwarding is %q, %v, want %q", got, err, want)
	}
}

func guarded(t *testing.T, g *gate, want ...string) {
	t.Helper()
	if got, err := g.Guarded(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("guarded: %v, %v, want %v", got, err, want)
	}
}

var guarding = network.Guest{
	ID: "00000000000a", Name: "dev", TAP: "btab12-00000000", Bridge: "banger-ab12", MAC: "02:ba:0a:df:00:02",
	Address: netip.MustParseAddr("10.223.0.2"), Gateway: netip.MustParseAddr("10.223.0.1"),
	Policy: network.Policy{NAT: true, Egress: network.EgressAll},
}

// A VM that starts while the host's network is given back keeps its rules.
func TestNothingIsTakenAwayFromAVMThatRuns(t *testing.T) {
	g := newGate(t)
	netnstest.In(t, func(t *testing.T) {
		if err := g.Guard(t.Context(), guarding); err != nil {
			t.Error(err)
			return
		}
		if _, err := g.uninstall(t.Context(), false); !fault.Is(err, fault.InUse) {
			t.Errorf("taken away: %v", err)
		}
		guarded(t, g, guarding.TAP)
		forwardsNow(t, "1")

		if err := g.Unguard(t.Context(), guarding.TAP); err != nil {
			t.Error(err)
		}
		lines, err := g.uninstall(t.Context(), false)
		if err != nil || len(lines) != 1 || !strings.Contains(lines[0], "net.ipv4.ip_forward") {
			t.Errorf("%v, %v", lines, err)
		}
		guarded(t, g)
		forwardsNow(t, "0")
	})
}

// A daemon finds guests that another started, which may have had no need of what these need, or left a TAP that is nobody's.
func TestTheGateBeginsWithWhatIsThere(t *testing.T) {
	before, g := newGate(t), newGate(t)
	netnstest.In(t, func(t *testing.T) {
		if err := before.tables.Put(t.Context(), guarding); err != nil {
			t.Error(err)
			return
		}
		g.begin(t.Context(), nil)
		guarded(t, g, guarding.TAP) // until it is taken back
		g.tidy(t.Context())
		guarded(t, g)

		g.begin(t.Context(), []network.Guest{guarding})
		g.tidy(t.Context())
		guarded(t, g, guarding.TAP)
		forwardsNow(t, "1")
	})
}
