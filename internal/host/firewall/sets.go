package firewall

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"banger/internal/network"
)

// The sets, all that differs from guest to guest. Their names are unique over both tables. Sets and not verdict maps: for a
// map with jumps the kernel walks all elements at each change.
const (
	setMACs      = "macs"       // bridge: TAP . MAC that may come in by it
	setAddrs4    = "addresses4" // bridge: TAP . source address
	setAddrs6    = "addresses6"
	setApart     = "isolated" // bridge: TAPs of isolated guests
	setApart4    = "isolated4"
	setApart6    = "isolated6"
	setGuests4   = "guests4" // of all that run
	setGuests6   = "guests6"
	setNear6     = "near6"     // guest . what its bridge serves
	setGateways4 = "gateways4" // guest . address of the host that it may ask
	setGateways6 = "gateways6"
	setNAT4      = "nat4" // guests that get out, with another source
	setNAT6      = "nat6"
	setOpen4     = "open4" // guests that may then connect to everywhere
	setOpen6     = "open6"
	setAllow4    = "allow4" // guest . prefix
	setAllow6    = "allow6"
	setLearned4  = "learned4" // guest . address that a name of its allow list has, with the name as comment
	setLearned6  = "learned6"
	setNoted4    = "noted4" // filled by the kernel: how often a guest's refusals were reported lately
	setNoted6    = "noted6"
)

// near6Bits is the length of what a bridge serves of IPv6.
const near6Bits = 64

// element is one of a set, comparable.
type element struct {
	set string
	key string
	end string // of an interval; "" elsewhere
}

// families are the two tables of an instance.
type families struct {
	inet, bridge *nftables.Table
	sets         []*nftables.Set
	byName       map[string]*nftables.Set
}

func newFamilies(name string) families {
	f := families{
		inet:   &nftables.Table{Name: name, Family: nftables.TableFamilyINet},
		bridge: &nftables.Table{Name: name, Family: nftables.TableFamilyBridge},
		byName: map[string]*nftables.Set{},
	}
	v4, v6, tap := nftables.TypeIPAddr, nftables.TypeIP6Addr, nftables.TypeIFName
	f.add(f.bridge, setMACs, tap, nftables.TypeEtherAddr)
	f.add(f.bridge, setAddrs4, tap, v4)
	f.add(f.bridge, setAddrs6, tap, v6)
	f.add(f.bridge, setApart, tap).KeyByteOrder = binaryutil.NativeEndian // so that nft can show it
	for _, name := range []string{setGuests4, setApart4, setNAT4, setOpen4} {
		f.add(f.inet, name, v4)
	}
	for _, name := range []string{setGuests6, setApart6, setNAT6, setOpen6} {
		f.add(f.inet, name, v6)
	}
	f.add(f.inet, setGateways4, v4, v4)
	f.add(f.inet, setGateways6, v6, v6)
	f.add(f.inet, setNear6, v6, v6)
	f.add(f.inet, setAllow4, v4, v4).Interval = true
	f.add(f.inet, setAllow6, v6, v6).Interval = true
	f.add(f.inet, setLearned4, v4, v4).HasTimeout = true
	f.add(f.inet, setLearned6, v6, v6).HasTimeout = true
	for _, s := range []*nftables.Set{f.add(f.inet, setNoted4, v4), f.add(f.inet, setNoted6, v6)} {
		s.Dynamic, s.HasTimeout, s.Timeout, s.Size = true, true, time.Minute, 1<<16-1
	}
	return f
}

// add gives each set an id, since the library counts them in a variable that all its connections share.
func (f *families) add(table *nftables.Table, name string, types ...nftables.SetDatatype) *nftables.Set {
	s := &nftables.Set{
		Table: table, ID: uint32(len(f.sets) + 1), Name: name, KeyType: nftables.MustConcatSetType(types...),
		Concatenation: len(types) > 1, KeyByteOrder: binaryutil.BigEndian,
	}
	f.sets = append(f.sets, s)
	f.byName[name] = s
	return s
}

// elements are what a guest becomes, in no order. What it learned comes on top.
func elements(g network.Guest) map[element]struct{} {
	all := map[element]struct{}{}
	add := func(set string, parts ...[]byte) {
		all[element{set: set, key: string(bytes.Join(parts, nil))}] = struct{}{}
	}
	tap := ifname(g.TAP)
	mac, local, ok := linkLocal(g.MAC)
	if !ok {
		return all // passes nothing
	}
	add(setMACs, tap, mac, []byte{0, 0})
	add(setAddrs6, tap, local.AsSlice())
	add(setGuests6, local.AsSlice())
	if g.Policy.Isolated {
		add(setApart, tap)
		add(setApart6, local.AsSlice())
	}
	if g.Gateway6.IsValid() {
		add(setGateways6, local.AsSlice(), g.Gateway6.AsSlice())
		near := netip.PrefixFrom(g.Gateway6, near6Bits).Masked().Addr()
		for _, src := range []netip.Addr{local, g.Address6} {
			add(setNear6, src.AsSlice(), near.AsSlice())
		}
	}
	for _, a := range sides(g) {
		src := a.guest.AsSlice()
		add(a.sets.addresses, tap, src)
		add(a.sets.guests, src)
		if a.gateway.IsValid() {
			add(a.sets.gateways, src, a.gateway.AsSlice())
		}
		if g.Policy.Isolated {
			add(a.sets.isolated, src)
		}
		if a.nat {
			add(a.sets.nat, src)
		}
		switch g.Policy.Egress {
		case network.EgressAll:
			add(a.sets.open, src)
		case network.EgressList:
			for _, p := range widest(g.Policy.Allow.Prefixes) {
				if p.Addr().Is4() == a.guest.Is4() {
					first, last := slices.Concat(src, p.Addr().AsSlice()), slices.Concat(src, lastOf(p).AsSlice())
					all[element{set: a.sets.allow, key: string(first), end: string(last)}] = struct{}{}
				}
			}
		case network.EgressNone:
		}
	}
	return all
}

// side is a guest in one family of addresses.
type side struct {
	guest, gateway netip.Addr
	nat            bool
	sets           sideSets
}

type sideSets struct{ addresses, guests, gateways, isolated, nat, open, allow, learned string }

// sides are the families in which a guest has an address.
func sides(g network.Guest) []side {
	var all []side
	if g.Address.Is4() {
		all = append(all, side{g.Address, g.Gateway, g.Policy.NAT, sideSets{setAddrs4, setGuests4, setGateways4, setApart4, setNAT4, setOpen4, setAllow4, setLearned4}})
	}
	if g.Address6.Is6() {
		all = append(all, side{g.Address6, g.Gateway6, g.Policy.NAT6, sideSets{setAddrs6, setGuests6, setGateways6, setApart6, setNAT6, setOpen6, setAllow6, setLearned6}})
	}
	return all
}

// ifname is a device's name as the kernel compares it.
func ifname(name string) []byte {
	key := make([]byte, 16)
	copy(key[:15], name)
	return key
}

// linkLocal is the address that a guest gives itself by its MAC.
func linkLocal(mac string) (net.HardwareAddr, netip.Addr, bool) {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		return nil, netip.Addr{}, false
	}
	a := [16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}
	return m, netip.AddrFrom16(a), true
}

// addresses are all that no other guest has.
func addresses(g network.Guest) []netip.Addr {
	var all []netip.Addr
	for _, s := range sides(g) {
		all = append(all, s.guest)
	}
	if _, local, ok := linkLocal(g.MAC); ok {
		all = append(all, local)
	}
	return all
}

// widest leaves out the prefixes that others contain: the kernel refuses intervals that overlap.
func widest(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare)
	var all []netip.Prefix
	for _, p := range sorted {
		if n := len(all); n == 0 || !all[n-1].Overlaps(p) {
			all = append(all, p)
		}
	}
	return all
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if host := min(max((i+1)*8-p.Bits(), 0), 8); host > 0 {
			b[i] |= byte(1<<host - 1)
		}
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
