package firewall

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

	"banger/internal/network"
)

// renewal is what a time has to grow by: whoever asks for one name again and again makes no transaction each time.
const renewal = time.Second

// Learn lets a guest whose policy is a list connect to what a name of its list has, for this time from now. One that is
// known is good for the longer of both, within a second. Names that the list does not have, and guests without one, learn nothing.
func (f *Firewall) Learn(ctx context.Context, tap, name string, addrs []netip.Addr, ttl time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.guests[tap]
	if g == nil || g.Policy.Egress != network.EgressList || !g.Policy.Allow.HasName(name) {
		return nil
	}
	now := time.Now()
	gone := &guest{Guest: g.Guest, learned: map[netip.Addr]lesson{}}
	come := &guest{Guest: g.Guest, learned: map[netip.Addr]lesson{}}
	for _, a := range addrs {
		l := lesson{name, now.Add(ttl)}
		if had, ok := g.learned[a]; ok && l.ends.Before(had.ends.Add(renewal)) && had.ends.After(now) {
			if l.ends = had.ends; l == had {
				continue
			}
		}
		g.learned[a], come.learned[a] = l, l
	}
	if len(come.learned) == 0 {
		return nil
	}
	for _, a := range g.surplus(now) {
		gone.learned[a] = g.learned[a]
		delete(g.learned, a)
		delete(come.learned, a)
	}
	err := f.change(ctx, func(c *nftables.Conn) error { return f.relearn(c, []*guest{gone}, come, now) })
	return f.explain("let out", tap, err)
}

// Learned lists what a guest has learned.
func (f *Firewall) Learned(ctx context.Context, tap string) ([]Learned, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.guests[tap]
	if g == nil {
		return nil, ctx.Err()
	}
	now := time.Now()
	var all []Learned
	for a, l := range g.learned {
		if l.ends.After(now) {
			all = append(all, Learned{a, l.name, l.ends})
		}
	}
	slices.SortFunc(all, func(a, b Learned) int { return a.Addr.Compare(b.Addr) })
	return all, ctx.Err()
}

// surplus forgets what has expired, and names the addresses that are too many.
func (g *guest) surplus(now time.Time) []netip.Addr {
	var four, six []netip.Addr
	for a, l := range g.learned {
		switch {
		case !l.ends.After(now):
			delete(g.learned, a)
		case a.Is4():
			four = append(four, a)
		default:
			six = append(six, a)
		}
	}
	var over []netip.Addr
	for _, all := range [][]netip.Addr{four, six} {
		if n := len(all) - MaxLearned; n > 0 {
			slices.SortFunc(all, func(a, b netip.Addr) int { return g.learned[a].ends.Compare(g.learned[b].ends) })
			over = append(over, all[:n]...)
		}
	}
	return over
}

// keep is what remains learned under a policy.
func keep(learned map[netip.Addr]lesson, p network.Policy, now time.Time) map[netip.Addr]lesson {
	kept := map[netip.Addr]lesson{}
	for a, l := range learned {
		if p.Egress == network.EgressList && p.Allow.HasName(l.name) && l.ends.After(now) {
			kept[a] = l
		}
	}
	return kept
}

// relearn takes out what some guests learned and puts in what one did; what is the same is left alone. The kernel may have
// forgotten an element meanwhile, which could then not be deleted, and one that it has does not take a new time before Linux
// 6.12: so each is added, deleted and added.
func (f *Firewall) relearn(c *nftables.Conn, gone []*guest, come *guest, now time.Time) error {
	before, after := map[string][]nftables.SetElement{}, map[string][]nftables.SetElement{}
	for _, g := range gone {
		g.lessons(before, now)
	}
	come.lessons(after, now)
	for _, set := range []string{setLearned4, setLearned6} {
		s := f.families.byName[set]
		out, in := without(before[set], after[set]), without(after[set], before[set])
		both := slices.CompactFunc(slices.SortedFunc(slices.Values(slices.Concat(out, in)), byKey), sameKey)
		if err := each(c.SetAddElements, s, both); err != nil {
			return err
		}
		if err := each(c.SetDeleteElements, s, both); err != nil {
			return err
		}
		if err := each(c.SetAddElements, s, in); err != nil {
			return err
		}
	}
	return nil
}

func byKey(a, b nftables.SetElement) int    { return bytes.Compare(a.Key, b.Key) }
func sameKey(a, b nftables.SetElement) bool { return bytes.Equal(a.Key, b.Key) }

// without leaves out what is the same in both, with its time.
func without(all, other []nftables.SetElement) []nftables.SetElement {
	same := make(map[string]nftables.SetElement, len(other))
	for _, e := range other {
		same[string(e.Key)] = e
	}
	var left []nftables.SetElement
	for _, e := range all {
		if o, ok := same[string(e.Key)]; !ok || o.Timeout != e.Timeout || o.Comment != e.Comment {
			left = append(left, e)
		}
	}
	return left
}

// lessons are the elements of what a guest learned, by set.
func (g *guest) lessons(bySet map[string][]nftables.SetElement, now time.Time) {
	for _, side := range sides(g.Guest) {
		for a, l := range g.learned {
			if left := l.ends.Sub(now); left > 0 && a.Is4() == side.guest.Is4() {
				bySet[side.sets.learned] = append(bySet[side.sets.learned], nftables.SetElement{
					Key: slices.Concat(side.guest.AsSlice(), a.AsSlice()), Timeout: millis(left), Comment: l.name,
				})
			}
		}
	}
}

// readLearned takes over what another daemon's guests had learned by the kernel's tables.
func (f *Firewall) readLearned(now time.Time) error {
	for _, set := range []string{setLearned4, setLearned6} {
		all, err := dump(f.families.byName[set])
		if err != nil {
			return err
		}
		for _, e := range all {
			half := len(e.Key) / 2
			src, _ := netip.AddrFromSlice(e.Key[:half])
			dst, ok := netip.AddrFromSlice(e.Key[half:])
			g := f.byAddr[src]
			if g == nil || !ok || e.Expires <= 0 {
				continue
			}
			l := map[netip.Addr]lesson{dst: {e.Comment, now.Add(e.Expires)}}
			for a, l := range keep(l, g.Policy, now) {
				g.learned[a] = l
			}
		}
	}
	return nil
}
