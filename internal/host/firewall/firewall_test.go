package firewall_test

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/firewall"
	"banger/internal/network"
)

func TestCheck(t *testing.T) {
	w := newWorld(t)
	before := w.tables()
	w.at(w.fw.Check)
	if d := cmp.Diff(before, w.tables(), cmp.AllowUnexported(part{})); d != "" {
		t.Errorf("a check leaves something (-before +after):\n%s", d)
	}
}

func TestConnectionsOutliveARebuild(t *testing.T) {
	one, two := guest(1), guest(2)
	one.Policy.Egress, one.Policy.Allow = network.EgressList, allow("203.0.113.7")
	w := newWorld(t, one, two)
	a := w.guests[one.TAP]
	w.outside.echo(server + ":80")
	w.guests[two.TAP].echo(":7")
	a.echo(":7")
	w.rebuild(one, two)
	held := map[string]net.Conn{}
	for _, c := range []struct {
		from *place
		to   string
	}{{a, server + ":80"}, {a, "192.0.2.12:7"}, {w.host, "192.0.2.11:7"}} {
		conn, err := c.from.dial("tcp", c.to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		held[c.to] = conn
	}
	w.rebuild(one, two)
	w.fw = firewall.New(tag)
	w.rebuild(one, two)
	for to, conn := range held {
		if err := echoed(conn); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}

	// While no daemon ran the policy changed.
	one.Policy.Egress = network.EgressNone
	w.fw = firewall.New(tag)
	w.rebuild(one, two)
	if err := echoed(held[server+":80"]); err == nil {
		t.Error("a connection goes on that is no longer allowed")
	}
	if err := echoed(held["192.0.2.11:7"]); err != nil {
		t.Errorf("the host's connection: %v", err)
	}
}

// While the tables are made anew, again and again, no spoofed frame passes and no honest one is lost.
func TestThereIsNoMomentWithoutRules(t *testing.T) {
	one, two := guest(1), guest(2)
	w := newWorld(t, one, two)
	w.rebuild(one, two)
	mac, err := net.ParseMAC(one.MAC)
	if err != nil {
		t.Fatal(err)
	}
	all, everyone := net.HardwareAddr{255, 255, 255, 255, 255, 255}, netip.MustParseAddr("255.255.255.255")
	honest := frame(all, mac, unix.ETH_P_IP, packet4(one.Address, everyone, unix.IPPROTO_UDP, udp(9, 9)))
	var frames []sent
	var want []string
	for i := range 500 {
		name := fmt.Sprint("honest ", i)
		frames = append(frames, sent{name, honest, true}, sent{"spoofed", frame(all, mac, unix.ETH_P_IP, packet4(two.Address, everyone, unix.IPPROTO_UDP, udp(9, 9))), false})
		want = append(want, name)
	}
	w.netfilter("0")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				w.rebuild(one, two)
			}
		}
	}()
	if d := cmp.Diff(want, crossing(w.guests[one.TAP], w.guests[two.TAP], frames, honest)); d != "" {
		t.Errorf("what passes (-want +got):\n%s", d)
	}
	close(stop)
	<-stopped
}

func TestEnsure(t *testing.T) {
	one, two := guest(1), guest(2)
	one.Policy.Egress, one.Policy.Allow = network.EgressList, allow("203.0.113.0/30,example.com")
	w := newWorld(t, one, two)
	w.outside.echo(server + ":80")
	ensure := func(want bool) {
		t.Helper()
		w.at(func() error {
			mended, err := w.fw.Ensure(t.Context())
			if mended != want {
				t.Errorf("mended: %v, want %v", mended, want)
			}
			return err
		})
	}
	ensure(false) // nor are there guests
	w.rebuild(one, two)
	w.at(func() error {
		return w.fw.Learn(t.Context(), one.TAP, "example.com", []netip.Addr{netip.MustParseAddr(server)}, time.Hour)
	})
	ensure(false)
	ensure(false)
	before := w.tables()
	inet := &nftables.Table{Name: tag.Bridge(0), Family: nftables.TableFamilyINet}
	bridge := &nftables.Table{Name: tag.Bridge(0), Family: nftables.TableFamilyBridge}
	foreign := &nftables.Table{Name: "somebody", Family: nftables.TableFamilyINet}
	for name, damage := range map[string]func(c *nftables.Conn) error{
		"all is gone":     func(c *nftables.Conn) error { c.FlushRuleset(); return nil },
		"a table is gone": func(c *nftables.Conn) error { c.DelTable(bridge); return nil },
		"a chain is empty": func(c *nftables.Conn) error {
			c.FlushChain(&nftables.Chain{Name: "from", Table: inet})
			return nil
		},
		"a rule is new": func(c *nftables.Conn) error {
			c.AddRule(&nftables.Rule{Table: inet, Chain: &nftables.Chain{Name: "from", Table: inet}})
			return nil
		},
		"a set is empty": func(c *nftables.Conn) error {
			c.FlushSet(&nftables.Set{Name: "macs", Table: bridge})
			return nil
		},
		"an element is new": func(c *nftables.Conn) error {
			return c.SetAddElements(&nftables.Set{Name: "open4", Table: inet}, []nftables.SetElement{{Key: one.Address.AsSlice()}})
		},
	} {
		w.at(func() error { return change(damage) })
		ensure(true)
		ensure(false)
		if d := cmp.Diff(before, w.tables(), cmp.AllowUnexported(part{})); d != "" {
			t.Errorf("%s (-before +after):\n%s", name, d)
		}
		w.guests[one.TAP].reaches("tcp", server+":80")
	}

	// A change to what is not as it was taken for mends it too.
	w.at(func() error { return change(func(c *nftables.Conn) error { c.FlushRuleset(); return nil }) })
	w.put(one)
	two.Policy.NAT = false
	w.put(two)
	ensure(false)
	w.guests[one.TAP].reaches("tcp", server+":80")

	// What others do with their own is none of ours.
	w.at(func() error { return change(func(c *nftables.Conn) error { c.AddTable(foreign); return nil }) })
	ensure(false)
}

func change(fill func(c *nftables.Conn) error) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if err := fill(c); err != nil {
		return err
	}
	return c.Flush()
}

func TestTheRulesAreOfConstantNumber(t *testing.T) {
	w := newWorld(t)
	one, two := guest(1), guest(2)
	one.Policy.Egress, one.Policy.Allow = network.EgressList, allow("203.0.113.0/24,2001:db8::/32")
	two.Policy.Isolated, two.Policy.NAT = true, false
	three := guest(3)
	w.put(three)
	lonely := w.tables()
	w.put(one)
	w.put(two)
	some := w.tables()
	for name := range lonely {
		if lonely[name].rules != some[name].rules {
			t.Errorf("%s has %d rules with a guest and %d with three", name, lonely[name].rules, some[name].rules)
		}
	}
	if len(some) != len(lonely) {
		t.Errorf("%d chains and sets became %d", len(lonely), len(some))
	}
	for _, g := range []network.Guest{one, two} {
		for range 2 {
			w.at(func() error { return w.fw.Drop(t.Context(), g.TAP) })
		}
	}
	if d := cmp.Diff(lonely, w.tables(), cmp.AllowUnexported(part{})); d != "" {
		t.Errorf("after the others have gone (-before +after):\n%s", d)
	}
	w.at(func() error {
		if err := w.fw.Remove(t.Context()); !fault.Is(err, fault.InUse) {
			t.Errorf("removed while a guest is there: %v", err)
		}
		return nil
	})
	w.at(func() error { return w.fw.Drop(t.Context(), three.TAP) })
	if left := w.tables(); len(left) > 0 {
		t.Errorf("without guests there are %v", left)
	}
	for range 2 {
		w.at(func() error { return w.fw.Remove(t.Context()) })
	}
	if left := w.tables(); len(left) != 0 {
		t.Errorf("after Remove: %v", left)
	}
}

func TestGuests(t *testing.T) {
	one, two := guest(1), guest(2)
	w := newWorld(t)
	check := func(want ...string) {
		t.Helper()
		w.at(func() error {
			got, err := w.fw.Guests(t.Context())
			if d := cmp.Diff(want, append([]string(nil), got...)); d != "" {
				t.Error(d)
			}
			return err
		})
	}
	check()
	w.rebuild(one)
	w.put(two)
	check(one.TAP, two.TAP)

	// An address has one guest.
	again := guest(3)
	again.Address = one.Address
	w.put(again)
	check(two.TAP, again.TAP)
	w.at(func() error { return w.fw.Drop(t.Context(), one.TAP) })
	w.at(func() error { return w.fw.Drop(t.Context(), two.TAP) })
	check(again.TAP)
	w.at(func() error {
		mended, err := w.fw.Ensure(t.Context())
		if mended {
			t.Error("the tables were not what they were to be")
		}
		return err
	})
}

func TestSideBySide(t *testing.T) {
	w := newWorld(t)
	w.rebuild()
	// Each thread has to be in the namespace.
	var wg sync.WaitGroup
	for n := range byte(4) {
		wg.Go(func() {
			g := guest(n + 1)
			g.Policy.Egress, g.Policy.Allow = network.EgressList, allow("example.com")
			for range 5 {
				w.host.inside(func() error { return w.fw.Put(t.Context(), g) })
				w.host.inside(func() error {
					return w.fw.Learn(t.Context(), g.TAP, "example.com", []netip.Addr{netip.MustParseAddr(server)}, time.Minute)
				})
				w.host.inside(func() error { _, err := w.fw.Ensure(t.Context()); return err })
				w.host.inside(func() error { return w.fw.Drop(t.Context(), g.TAP) })
			}
		})
	}
	wg.Wait()
	w.at(func() error {
		all, err := w.fw.Guests(t.Context())
		if len(all) > 0 {
			t.Errorf("left: %v", all)
		}
		return err
	})
}

// part is a chain or a set.
type part struct{ rules, elements int }

// tables are what the kernel has under the instance's name.
func (w *world) tables() map[string]part {
	all := map[string]part{}
	w.at(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		if err != nil {
			return err
		}
		chains, err := c.ListChains()
		if err != nil {
			return err
		}
		for _, ch := range chains {
			rules, err := c.GetRules(ch.Table, ch)
			if err != nil {
				return err
			}
			all[fmt.Sprint(ch.Table.Family, " ", ch.Table.Name, " chain ", ch.Name)] = part{rules: len(rules)}
		}
		for _, table := range tables {
			sets, err := c.GetSets(table)
			if err != nil {
				return err
			}
			for _, s := range sets {
				elements, err := c.GetSetElements(s)
				if err != nil {
					return err
				}
				all[fmt.Sprint(table.Family, " ", table.Name, " set ", s.Name)] = part{elements: len(elements)}
			}
		}
		return nil
	})
	return all
}
