package firewall

import (
	"bytes"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"banger/internal/network"
	"banger/internal/vm"
)

// chain is one with its rules. Their number does not depend on the guests.
type chain struct {
	nft   *nftables.Chain
	rules [][]expr.Any
}

// beforeOthers is the place of our filters: before everyone's that drop without a word, so that what we refuse is refused at
// once, and told of.
const beforeOthers = -10

// chains are those of both tables, in an order in which each can be made: who is jumped to comes first.
func (f families) chains(tag vm.Tag, group uint16) []chain {
	return append(f.bridgeChains(tag), f.inetChains(tag, group)...)
}

// bridgeChains hold each guest to its own addresses, and isolated ones apart. Here there is no reject: many kernels lack it.
func (f families) bridgeChains(tag vm.Tag) []chain {
	const early = -400 // before the bridge's own hooks, connection tracking and br_netfilter
	taps := tag.TAPs()
	arp, ip4, ip6 := ether(8, 6), ether(8, 0), ether(0x86, 0xdd)
	ownARP := chain{f.regular(f.bridge, "own_arp"), [][]expr.Any{
		rule(arp, nh(0, 2), isNot(0, 1), drop()), // Ethernet and IPv4, nothing else
		rule(arp, nh(2, 2), isNot(8, 0), drop()),
		rule(arp, nh(4, 1), isNot(6), drop()),
		rule(arp, nh(5, 1), isNot(4), drop()),
		rule(arp, fromTAP(), nhTo(12, 8, 6), notIn(setMACs), drop()),
		rule(arp, nh(6, 2), is(0, 1), nh(14, 4), is(0, 0, 0, 0), accept()), // a probe: is the address free?
		rule(arp, fromTAP(), nhTo(12, 14, 4), in(setAddrs4), accept()),
		rule(drop()),
	}}
	toDHCP := rule(l4(unix.IPPROTO_UDP), th(2, 2), is(0, 67))
	ofItself := rule(fromTAP(), thTo(12, 36, 6), in(setMACs)) // the client's hardware address
	ownIPv4 := chain{f.regular(f.bridge, "own_ipv4"), [][]expr.Any{
		rule(l4(unix.IPPROTO_UDP), th(0, 2), is(0, 67), drop()), // a guest gives no leases
		rule(ip4, toDHCP, ofItself, fromTAP(), nhTo(12, 12, 4), in(setAddrs4), accept()),
		rule(ip4, toDHCP, ofItself, nh(12, 4), is(0, 0, 0, 0), nh(16, 4), is(255, 255, 255, 255), th(0, 2), is(0, 68), accept()),
		rule(toDHCP, drop()), // it asks for no other guest, whose name it would be told
		rule(ip4, fromTAP(), nhTo(12, 12, 4), in(setAddrs4), accept()),
		rule(drop()),
	}}
	icmpv6 := func(kind byte) []expr.Any { return rule(l4(unix.IPPROTO_ICMPV6), th(0, 1), is(kind)) }
	nobody := rule(ip6, nh(8, 16), is(make([]byte, 16)...))
	ownTarget := rule(fromTAP(), thTo(2, 8, 16))
	ownIPv6 := chain{f.regular(f.bridge, "own_ipv6"), [][]expr.Any{
		rule(l4(unix.IPPROTO_UDP), th(0, 2), is(2, 35), drop()), // DHCPv6, from a server's port
		rule(icmpv6(134), drop()),                               // router advertisement
		rule(icmpv6(137), drop()),                               // redirect
		rule(icmpv6(136), ownTarget, notIn(setAddrs6), drop()),
		rule(ip6, fromTAP(), nhTo(2, 8, 16), in(setAddrs6), accept()),
		rule(nobody, icmpv6(135), ownTarget, in(setAddrs6), accept()), // is the address free?
		rule(nobody, icmpv6(143), accept()),                           // multicast listener reports
		rule(nobody, icmpv6(131), accept()),
		rule(drop()),
	}}
	guard := chain{f.regular(f.bridge, "guard"), [][]expr.Any{
		rule(fromTAP(), llTo(12, 6, 6), notIn(setMACs), drop()),
		rule(ip4, goTo("own_ipv4")), // as it was sent: a frame with a VLAN's tag is none of these
		rule(arp, goTo("own_arp")),
		rule(ip6, goTo("own_ipv6")),
		rule(drop()),
	}}
	return []chain{
		ownARP, ownIPv4, ownIPv6, guard,
		{f.base(f.bridge, "prerouting", nftables.ChainHookPrerouting, early), [][]expr.Any{rule(iif(taps), goTo("guard"))}},
		{f.base(f.bridge, "forward", nftables.ChainHookForward, early), [][]expr.Any{
			rule(iif(taps), toTAP(), in(setApart), drop()),
			rule(oif(taps), fromTAP(), in(setApart), drop()),
		}},
	}
}

// inetChains say where guests get, and who gets to them.
func (f families) inetChains(tag vm.Tag, group uint16) []chain {
	ours, taps := tag.Bridge(0), tag.TAPs()
	refuse := chain{f.regular(f.inet, "refuse"), [][]expr.Any{
		rule(ipv4(), nhTo(1, 12, 4), within(setNoted4), log(group)),
		rule(ipv6(), nhTo(1, 8, 16), within(setNoted6), log(group)),
		rule(l4(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}),
		rule(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}),
	}}
	services := chain{f.regular(f.inet, "services"), [][]expr.Any{
		rule(l4(unix.IPPROTO_UDP), th(2, 2), is(0, 53), accept()),
		rule(l4(unix.IPPROTO_TCP), th(2, 2), is(0, 53), accept()),
		rule(ipv4(), l4(unix.IPPROTO_UDP), th(2, 2), is(0, 67), accept()),
		rule(ipv4(), l4(unix.IPPROTO_ICMP), th(0, 1), is(8), accept()),
		rule(ipv6(), l4(unix.IPPROTO_ICMPV6), th(0, 1), is(128), accept()),
		rule(goTo("refuse")),
	}}
	host := chain{f.regular(f.inet, "host"), [][]expr.Any{
		rule(replies(), accept()),
		rule(ipv6(), l4(unix.IPPROTO_ICMPV6), th(0, 1), is(135), accept()), // neighbour discovery
		rule(ipv6(), l4(unix.IPPROTO_ICMPV6), th(0, 1), is(136), accept()),
		rule(ipv4(), nh(16, 4), is(255, 255, 255, 255), l4(unix.IPPROTO_UDP), th(2, 2), is(0, 67), accept()),
		rule(ipv4(), nhTo(8, 12, 4), nhTo(9, 16, 4), in(setGateways4), goTo("services")),
		rule(ipv6(), nhTo(1, 8, 16), nhTo(2, 24, 16), in(setGateways6), goTo("services")),
		rule(meta(expr.MetaKeyPKTTYPE), isNot(unix.PACKET_HOST), drop()), // to all, as multicast DNS: nothing to tell of
		rule(goTo("refuse")),
	}}
	nobody := chain{f.regular(f.inet, "nobody"), [][]expr.Any{
		rule(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_HOST_UNREACH}),
	}}
	neighbours := chain{f.regular(f.inet, "neighbours"), [][]expr.Any{
		rule(ipv4(), nhTo(1, 12, 4), in(setApart4), goTo("refuse")),
		rule(ipv4(), nhTo(1, 16, 4), in(setApart4), goTo("refuse")),
		rule(ipv6(), nhTo(1, 8, 16), in(setApart6), goTo("refuse")),
		rule(ipv6(), nhTo(1, 24, 16), in(setApart6), goTo("refuse")),
		// The host would look for who is not there, and has little room to remember whom it looks for. What is to all, and
		// only crosses the bridge, is not for it to look for.
		rule(meta(expr.MetaKeyPKTTYPE), isNot(unix.PACKET_HOST), accept()),
		rule(ipv4(), nhTo(1, 16, 4), notIn(setGuests4), goTo("nobody")),
		rule(ipv6(), nhTo(1, 24, 16), notIn(setGuests6), goTo("nobody")),
		rule(accept()),
	}}
	var metadata6 [][]expr.Any
	for _, a := range network.Metadata6() {
		metadata6 = append(metadata6, rule(ipv6(), nh(24, 16), is(a.AsSlice()...), goTo("refuse")))
	}
	from := chain{f.regular(f.inet, "from"), append(metadata6, [][]expr.Any{
		rule(ipv4(), nh(16, 2), is(169, 254), goTo("refuse")), // what a cloud tells of its host, before all else
		rule(state(expr.CtStateBitESTABLISHED), accept()),     // and not what is related: an error may be about another's connection
		rule(oif(ours), goTo("neighbours")),
		rule(ipv6(), nh(24, 16), masked(first(16, 0xff, 0xc0)...), is(first(16, 0xfe, 0x80)...), goTo("refuse")),
		rule(state(expr.CtStateBitINVALID), drop()),                  // it would leave with the guest's own address
		rule(ipv4(), nhTo(1, 12, 4), notIn(setNAT4), goTo("refuse")), // nobody out there could answer its own address
		rule(ipv6(), nhTo(1, 8, 16), notIn(setNAT6), goTo("refuse")),
		rule(ipv4(), nhTo(1, 12, 4), in(setOpen4), accept()),
		rule(ipv6(), nhTo(1, 8, 16), in(setOpen6), accept()),
		rule(ipv4(), nhTo(8, 12, 4), nhTo(9, 16, 4), in(setAllow4), accept()),
		rule(ipv6(), nhTo(1, 8, 16), nhTo(2, 24, 16), in(setAllow6), accept()),
		rule(ipv4(), nhTo(8, 12, 4), nhTo(9, 16, 4), in(setLearned4), accept()),
		rule(ipv6(), nhTo(1, 8, 16), nhTo(2, 24, 16), in(setLearned6), accept()),
		rule(goTo("refuse")),
	}...)}
	// What is to go back by the bridge that it came by would have the kernel look for its receiver, so as to redirect who sent it,
	// before it comes to forward. IPv4 does not.
	near := chain{f.regular(f.inet, "near"), [][]expr.Any{
		rule(ipv6(), nhTo(1, 24, 16), in(setGuests6), accept()),
		rule(ipv6(), nhTo(1, 8, 16), nhTo(2, 24, 16), in(setGateways6), accept()),
		rule(ipv6(), nhTo(1, 8, 16), nhTo(2, 24, 16), maskedAt(2, first(16, bytes.Repeat([]byte{0xff}, near6Bits/8)...)...), in(setNear6), drop()),
		// A host that does not forward IPv6 drops it without a word. Who does not get out by it is told so here.
		rule(state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept()),
		rule(ipv6(), nhTo(1, 8, 16), notIn(setNAT6), nh(24, 1), masked(0xe0), is(0x20), goTo("refuse")),
	}}
	towards := chain{f.regular(f.inet, "towards"), [][]expr.Any{
		rule(replies(), accept()),
		rule(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}),
	}}
	postrouting := f.base(f.inet, "postrouting", nftables.ChainHookPostrouting, int32(*nftables.ChainPriorityNATSource))
	postrouting.Type = nftables.ChainTypeNAT
	return []chain{
		refuse, services, host, nobody, neighbours, from, near, towards,
		{f.base(f.inet, "prerouting", nftables.ChainHookPrerouting, beforeOthers), [][]expr.Any{rule(iif(ours), goTo("near"))}},
		{f.base(f.inet, "input", nftables.ChainHookInput, beforeOthers), [][]expr.Any{
			// A bridge hands frames to the standard's link-local groups, as LLDP's, to the host as what came by their port, past
			// its own hooks: whoever sends IP in them means to get around the rules.
			rule(iif(taps), drop()),
			rule(iif(ours), goTo("host")),
		}},
		{f.base(f.inet, "forward", nftables.ChainHookForward, beforeOthers), [][]expr.Any{
			rule(iif(taps), drop()),
			rule(iif(ours), goTo("from")),
			rule(oif(ours), goTo("towards")),
		}},
		{postrouting, [][]expr.Any{
			rule(oif(ours), accept()),
			rule(ipv4(), nhTo(1, 12, 4), in(setNAT4), &expr.Masq{}),
			rule(ipv6(), nhTo(1, 8, 16), in(setNAT6), &expr.Masq{}),
		}},
	}
}

func (families) regular(t *nftables.Table, name string) *nftables.Chain {
	return &nftables.Chain{Name: name, Table: t}
}

func (families) base(t *nftables.Table, name string, hook *nftables.ChainHook, priority int32) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)), Policy: &policy,
	}
}

// rule joins expressions, and lists of them, to one rule.
func rule(parts ...any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		switch p := p.(type) {
		case []expr.Any:
			all = append(all, p...)
		case expr.Any:
			all = append(all, p)
		}
	}
	return all
}

// Registers: 1 to 4 have 16 bytes each; 8 to 23 are the same memory in pieces of 4 bytes. Where one is not named it is 1.

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: 1} }

func fromTAP() expr.Any { return meta(expr.MetaKeyIIFNAME) }

func toTAP() expr.Any              { return meta(expr.MetaKeyOIFNAME) }
func iif(prefix string) []expr.Any { return rule(meta(expr.MetaKeyIIFNAME), is([]byte(prefix)...)) }

func oif(prefix string) []expr.Any { return rule(meta(expr.MetaKeyOIFNAME), is([]byte(prefix)...)) }
func l4(protocol byte) []expr.Any  { return rule(meta(expr.MetaKeyL4PROTO), is(protocol)) }
func ipv4() []expr.Any             { return rule(meta(expr.MetaKeyNFPROTO), is(unix.NFPROTO_IPV4)) }

func ipv6() []expr.Any { return rule(meta(expr.MetaKeyNFPROTO), is(unix.NFPROTO_IPV6)) }

// ether is of the frame as it was sent. Rules whose chain is only for one of them ask again, or nft could not tell what they say.
func ether(kind ...byte) []expr.Any { return rule(ll(12, 2), is(kind...)) }

// The three headers by their names in nft: link layer, network, transport.

func ll(offset, n uint32) expr.Any { return llTo(1, offset, n) }
func nh(offset, n uint32) expr.Any { return nhTo(1, offset, n) }
func th(offset, n uint32) expr.Any { return thTo(1, offset, n) }

func llTo(register, offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: offset, Len: n}
}

func nhTo(register, offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n}
}

func thTo(register, offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: n}
}

func is(data ...byte) expr.Any    { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }
func isNot(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data} }

func masked(mask ...byte) expr.Any { return maskedAt(1, mask...) }

func maskedAt(register uint32, mask ...byte) expr.Any {
	return &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// first begins n bytes with these.
func first(n int, begin ...byte) []byte { return append(begin, make([]byte, n-len(begin))...) }

func in(set string) expr.Any    { return &expr.Lookup{SourceRegister: 1, SetName: set} }
func notIn(set string) expr.Any { return &expr.Lookup{SourceRegister: 1, SetName: set, Invert: true} }

// within lets through so many packets of whom register 1 names, and ends the rule for the others.
func within(set string) expr.Any {
	return &expr.Dynset{
		SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE,
		Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: 10, Unit: expr.LimitTimeSecond, Burst: 20}},
	}
}

func state(bits uint32) []expr.Any {
	return rule(&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, masked(binaryutil.NativeEndian.PutUint32(bits)...), isNot(0, 0, 0, 0))
}

func replies() []expr.Any { return state(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED) }

// snapLength has room for the headers that a refusal is read from.
const snapLength = 128

func log(group uint16) expr.Any {
	return &expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: group, Snaplen: snapLength}
}

func accept() expr.Any           { return &expr.Verdict{Kind: expr.VerdictAccept} }
func drop() expr.Any             { return &expr.Verdict{Kind: expr.VerdictDrop} }
func goTo(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }
