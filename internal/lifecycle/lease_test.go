package lifecycle_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/vm"
)

// elsewhere is a wide subnet, which is not the host's at first.
func elsewhere() network.Space {
	return network.Space{Tag: tag, Subnet: netip.MustParsePrefix("10.9.0.0/20"), ULA: network.NewULA([5]byte{9})}
}

// TestAVMMovesWithTheSubnet when it is started, and says so. One that runs stays where it is.
func TestAVMMovesWithTheSubnet(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("runs"))
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	first, runs := w.find("dev"), w.find("runs")
	w.network = elsewhere()
	w.boot()
	w.must(w.m.Idle(t.Context()))
	if d := w.find("dev"); d.Lease != first.Lease {
		t.Errorf("nobody has started it: %+v", d.Lease)
	}

	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	dev := w.find("dev")
	want := vm.Lease{
		Address: netip.MustParsePrefix("10.9.0.2/22"), Gateway: netip.MustParseAddr("10.9.0.1"),
		Address6: netip.MustParsePrefix("fd09::a09:2/64"), Gateway6: netip.MustParseAddr("fd09::a09:1"),
		MAC: "02:ba:0a:09:00:02", TAP: first.Lease.TAP, Bridge: "banger-ab12", CID: 3,
	}
	if dev.Lease != want {
		t.Errorf("got %+v, want %+v", dev.Lease, want)
	}
	told := w.ops(lifecycle.KindStart)[0].Warnings
	if d := cmp.Diff([]string{"from now on its address is 10.9.0.2 and fd09::a09:2; it was 198.18.0.3 and fd01:203:405::c612:3"}, told); d != "" {
		t.Error(d)
	}
	if got := w.find("runs"); got.Lease != runs.Lease {
		t.Errorf("one that runs has %+v", got.Lease)
	}

	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	if told := w.ops(lifecycle.KindStart)[0].Warnings; len(told) != 0 || w.find("dev").Lease != dev.Lease {
		t.Errorf("the next start: %q, %+v", told, w.find("dev").Lease)
	}
}

// TestAVMOfBeforeIPv6 keeps its address, and is given the other beside it.
func TestAVMOfBeforeIPv6(t *testing.T) {
	w := newWorld(t)
	now := w.network
	w.network.ULA = netip.Prefix{}
	w.boot()
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.network = now
	w.boot()
	w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
	if told := w.ops(lifecycle.KindStart)[0].Warnings; !slices.Equal(told, []string{"from now on its address is 198.18.0.2 and fd01:203:405::c612:2; it was 198.18.0.2"}) {
		t.Errorf("told %q", told)
	}
	config := w.host.Config(w.find("dev").ID)
	if config.Network == nil || config.Network.Address6 != "fd01:203:405::c612:2/64" {
		t.Errorf("its guest was told %+v", config.Network)
	}
}

// TestAVMIsTakenBackInAnotherSubnet and its guest, which goes on from before, is told where it is now.
func TestAVMIsTakenBackInAnotherSubnet(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.must(w.end(w.m.Checkpoint(t.Context(), alice, "dev", "before")))
	w.network = elsewhere()
	w.boot()
	w.must(w.end(w.m.Rollback(t.Context(), alice, "dev", "before")))
	dev := w.find("dev")
	if config := w.host.Config(dev.ID); !elsewhere().Subnet.Contains(dev.Lease.Address.Addr()) || config.Network == nil || config.Network.Address != dev.Lease.Address.String() || config.Network.MAC != dev.Lease.MAC {
		t.Errorf("it has %+v, and its guest was told %+v", dev.Lease, config.Network)
	}
}

// TestAFullSubnet gives addresses before they have rested, and a VM that comes back another one where it must.
func TestAFullSubnet(t *testing.T) {
	w := newWorld(t)
	w.network.Subnet = netip.MustParsePrefix("198.18.0.0/29") // of which 2 to 6 are guests'
	w.boot()
	for _, name := range []string{"n2", "n3", "n4", "n5", "n6"} {
		w.must(w.create(name))
	}
	w.says(w.create("more"), fault.Exhausted, `lease address: all 5 addresses of 198.18.0.0/29 are taken`, "such as 198.18.0.0/27")
	w.trash("n4")
	w.trash("n2")
	w.must(w.create("of-n4"))
	w.must(w.create("of-n2"))
	for name, want := range map[string]string{"of-n4": "198.18.0.4/29", "of-n2": "198.18.0.2/29"} {
		if got := w.find(name).Lease.Address.String(); got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
	}
	w.trash("n5")
	w.must(w.end(w.m.Restore(t.Context(), alice, "n2", "")))
	if got := w.find("n2").Lease.Address.String(); got != "198.18.0.5/29" {
		t.Errorf("it came back with %s", got)
	}
}
