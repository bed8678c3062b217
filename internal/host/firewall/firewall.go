// Package firewall holds what guests may send and reach: the instance's own nftables tables, one of the family bridge and one
// of the family inet, with a constant number of rules, and sets for the guests. It touches no packet that neither comes from
// a guest nor goes to one.
//
// What it does happens in the network namespace of the calling thread, which has to be the same one each time.
package firewall

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

// Firewall is the tables of one instance. Its methods may be called side by side.
type Firewall struct {
	name     string
	group    uint16 // of NFLOG
	families families
	chains   []chain

	mu      sync.Mutex
	conn    *nftables.Conn    // open from the first transaction on
	guests  map[string]*guest // by TAP, as the tables are to have them
	byAddr  map[netip.Addr]*guest
	known   bool       // what the kernel's learned addresses are has been read
	rules   [][]uint64 // handles at the last rebuild
	checked uint32     // the kernel's generation in which the tables were whole; 0 is none
}

// guest is one in the tables.
type guest struct {
	network.Guest
	elements map[element]struct{}
	learned  map[netip.Addr]lesson
}

// lesson is where a learned address is from, and how long it is good.
type lesson struct {
	name string
	ends time.Time
}

// Learned is an address that an allow list's name has.
type Learned struct {
	Addr    netip.Addr
	Name    string
	Expires time.Time
}

// MaxLearned is how many addresses a guest may have learned of one family; those that would expire first go.
const MaxLearned = 1024

// New returns the firewall of the instance with this tag.
func New(tag vm.Tag) *Firewall {
	group, _ := strconv.ParseUint(string(tag), 16, 16) // a tag is 4 hexadecimal digits
	f := &Firewall{name: tag.Bridge(0), group: uint16(group), families: newFamilies(tag.Bridge(0))}
	f.forgetAll()
	f.chains = f.families.chains(tag, f.group)
	return f
}

// Put makes the tables say of the guest's TAP what the guest says, in one transaction. Connections that it has, and that its
// policy no longer allows, are forgotten, so that their next packet is judged anew.
func (f *Firewall) Put(ctx context.Context, g network.Guest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	next := &guest{Guest: g, elements: elements(g), learned: map[netip.Addr]lesson{}}
	old := map[element]struct{}{}
	var before []*guest
	for _, was := range f.replaced(g) {
		maps.Copy(old, was.elements)
		before = append(before, was)
		if was.TAP == g.TAP && was.Address == g.Address && was.Address6 == g.Address6 {
			next.learned = keep(was.learned, g.Policy, now)
		}
		f.remove(was)
	}
	f.insert(next)
	gone, come := difference(old, next.elements), difference(next.elements, old)
	err := f.change(ctx, func(c *nftables.Conn) error {
		if err := f.put(c.SetDeleteElements, gone); err != nil {
			return err
		}
		if err := f.put(c.SetAddElements, come); err != nil {
			return err
		}
		return f.relearn(c, before, next, now)
	})
	if err == nil && len(before) > 0 { // also where nothing is new: the last time may not have come so far
		err = f.forget(next)
	}
	return f.explain("set firewall of", g.TAP, err)
}

// Drop takes a guest out, with what it learned and the connections that it had; the last one takes the tables along. Gone is
// success.
func (f *Firewall) Drop(ctx context.Context, tap string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.guests[tap]
	if g == nil {
		return nil
	}
	f.remove(g)
	var err error
	if len(f.guests) == 0 {
		err = f.removeTables()
	} else {
		err = f.change(ctx, func(c *nftables.Conn) error {
			if err := f.put(c.SetDeleteElements, slices.Collect(maps.Keys(g.elements))); err != nil {
				return err
			}
			return f.relearn(c, []*guest{g}, &guest{}, time.Now())
		})
	}
	if err == nil {
		err = flush(func(src, dst netip.Addr) bool { return g.has(src) || g.has(dst) }, ends(g)...)
	}
	return f.explain("clear firewall of", tap, err)
}

// Guests lists the TAPs that the kernel's tables know.
func (f *Firewall) Guests(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := dump(f.families.byName[setMACs])
	if err != nil {
		return nil, f.explain("list guests of", f.name, err)
	}
	taps := make([]string, 0, len(all))
	for _, e := range all {
		if len(e.Key) >= 16 {
			taps = append(taps, unix.ByteSliceToString(e.Key[:16]))
		}
	}
	slices.Sort(taps)
	return taps, nil
}

// Rebuild makes both tables anew with these guests, in one transaction: there is no moment without rules. What was learned
// stays, with the time that is left of it, and connections go on that the policies allow. Without guests there are no tables.
// A daemon that starts calls it first.
func (f *Firewall) Rebuild(ctx context.Context, guests []network.Guest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	was := f.guests
	f.forgetAll()
	for _, g := range guests {
		n := &guest{Guest: g, elements: elements(g), learned: map[netip.Addr]lesson{}}
		if was := was[g.TAP]; was != nil && was.Address == g.Address && was.Address6 == g.Address6 {
			n.learned = keep(was.learned, g.Policy, now)
		}
		f.insert(n)
	}
	if len(guests) == 0 {
		return f.explain("remove firewall", f.name, f.removeTables())
	}
	if !f.known {
		if err := f.readLearned(now); err != nil {
			return f.explain("read learned addresses of", f.name, err)
		}
		f.known = true
	}
	err := f.rebuild(ctx)
	if err == nil {
		err = f.forgetAny()
	}
	return f.explain("build firewall", f.name, err)
}

// Ensure looks whether the tables are as they were made, and makes them anew where somebody changed them.
func (f *Firewall) Ensure(ctx context.Context) (mended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.guests) == 0 {
		return false, ctx.Err()
	}
	whole, err := f.whole()
	if err == nil && !whole {
		mended, err = true, f.rebuild(ctx)
	}
	return mended && err == nil, f.explain("check firewall", f.name, err)
}

// Remove removes both tables, also those of another process, unless a guest is to be in them: that is fault.InUse. Gone is
// success.
func (f *Firewall) Remove(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if n := len(f.guests); n > 0 {
		return fault.New(fault.InUse, "%d VMs run", n).WithOp("remove firewall", f.name).WithHint("stop them first: `banger vm stop --all`")
	}
	return f.explain("remove firewall", f.name, f.removeTables())
}

// removeTables removes them. f.mu is held.
func (f *Firewall) removeTables() error {
	f.forgetAll()
	f.known, f.rules, f.checked = false, nil, 0
	defer f.hangUp()
	return f.transact(func(c *nftables.Conn) error {
		for _, t := range []*nftables.Table{f.families.inet, f.families.bridge} {
			c.AddTable(t) // so that it can be deleted
			c.DelTable(t)
		}
		return nil
	})
}

// change makes a transaction. Where the tables are not what it takes them for, all of them are made anew. f.mu is held.
func (f *Firewall) change(ctx context.Context, fill func(c *nftables.Conn) error) error {
	if f.rules == nil {
		return f.rebuild(ctx)
	}
	f.checked = 0 // the next look is a thorough one
	err := f.transact(fill)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		return f.rebuild(ctx)
	}
	return err
}

// rebuild makes the tables as memory has them. f.mu is held.
func (f *Firewall) rebuild(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	f.checked = 0
	err := f.transact(func(c *nftables.Conn) error {
		if err := f.build(c); err != nil {
			return err
		}
		var all []element
		for _, g := range f.guests {
			for e := range g.elements {
				all = append(all, e)
			}
		}
		if err := f.put(c.SetAddElements, all); err != nil {
			return err
		}
		learned := map[string][]nftables.SetElement{}
		for _, g := range f.guests {
			g.lessons(learned, now)
		}
		for set, all := range learned {
			if err := each(c.SetAddElements, f.families.byName[set], all); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.rules, err = f.handles()
	return err
}

// whole looks at the kernel's tables. f.mu is held.
func (f *Firewall) whole() (bool, error) {
	if f.rules == nil {
		return false, nil
	}
	now, err := generation()
	if err != nil || now == f.checked {
		return err == nil, err
	}
	rules, err := f.handles()
	if err != nil {
		return false, err
	}
	if !slices.EqualFunc(rules, f.rules, slices.Equal[[]uint64]) {
		return false, nil
	}
	want := map[element]struct{}{}
	for _, g := range f.guests {
		maps.Copy(want, g.elements)
	}
	for _, s := range f.families.sets {
		if s.HasTimeout {
			continue // it would cost the kernel the square of their number, and DNS answers fill it again
		}
		all, err := dump(s)
		if err != nil {
			return false, err
		}
		for _, e := range all {
			key := element{s.Name, string(e.Key), string(e.KeyEnd)}
			if _, ok := want[key]; !ok {
				return false, nil
			}
			delete(want, key)
		}
	}
	if len(want) > 0 {
		return false, nil
	}
	f.checked = now
	return true, nil
}

// forgetAll leaves memory without guests. f.mu is held, as below.
func (f *Firewall) forgetAll() {
	f.guests, f.byAddr = map[string]*guest{}, map[netip.Addr]*guest{}
}

func (f *Firewall) insert(g *guest) {
	f.guests[g.TAP] = g
	for _, a := range addresses(g.Guest) {
		f.byAddr[a] = g
	}
}

func (f *Firewall) remove(g *guest) {
	delete(f.guests, g.TAP)
	for _, a := range addresses(g.Guest) {
		delete(f.byAddr, a)
	}
}

// replaced are the guests that go when this one comes: itself, and who has what only one can have. That one has gone, whatever
// was not told.
func (f *Firewall) replaced(g network.Guest) []*guest {
	var all []*guest
	add := func(was *guest) {
		if was != nil && !slices.Contains(all, was) {
			all = append(all, was)
		}
	}
	add(f.guests[g.TAP])
	for _, a := range addresses(g) {
		add(f.byAddr[a])
	}
	return all
}

// has reports whether an address is the guest's.
func (g *guest) has(a netip.Addr) bool { return a.IsValid() && (a == g.Address || a == g.Address6) }

func difference(a, b map[element]struct{}) []element {
	var all []element
	for e := range a {
		if _, ok := b[e]; !ok {
			all = append(all, e)
		}
	}
	return all
}

func (f *Firewall) explain(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	e := fault.New(fault.Internal, "%w", err).WithOp(op, subject)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		e.Code = fault.Requirement
		return e.WithHint("run the daemon as root, or with the capability CAP_NET_ADMIN")
	}
	if missing(err) {
		e.Code = fault.Requirement
		return e.WithHint("see what the kernel lacks: `banger doctor`")
	}
	return e.WithHint("look at the tables with `nft list table inet %s` and `nft list table bridge %s`, and at `dmesg`", f.name, f.name)
}
