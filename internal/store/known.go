package store

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"banger/internal/vm"
)

// known holds the VMs as they are committed. This process is the only one that writes, so whoever asks for
// them need not have a thousand documents read and decoded again: every verb asks.
type known struct {
	turn sync.Mutex // held from a commit's begin until its outcome is in vms, and while vms is read anew

	mu     sync.Mutex
	vms    map[vm.ID]vm.VM // nil before the first reading, and after a commit that failed
	byName []vm.VM         // nil when vms has changed since
	named  map[string]vm.ID
	at     map[netip.Addr]vm.ID // by each address of a lease
}

// index has a VM found by what it is known by.
func (k *known) index(v vm.VM) {
	k.named[v.Name] = v.ID
	for _, p := range []netip.Prefix{v.Lease.Address, v.Lease.Address6} {
		if p.IsValid() {
			k.at[p.Addr()] = v.ID
		}
	}
}

// drop is index taken back, but for what another VM has by now.
func (k *known) drop(v vm.VM) {
	if k.named[v.Name] == v.ID {
		delete(k.named, v.Name)
	}
	for _, p := range []netip.Prefix{v.Lease.Address, v.Lease.Address6} {
		if p.IsValid() && k.at[p.Addr()] == v.ID {
			delete(k.at, p.Addr())
		}
	}
}

// keep takes in what a commit did to a VM; gone says that it left. The VM is kept as it would be read from
// its document.
func (k *known) keep(v vm.VM, gone bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.vms == nil {
		return
	}
	k.byName = nil
	k.drop(k.vms[v.ID])
	if gone {
		delete(k.vms, v.ID)
		return
	}
	var kept vm.VM
	doc, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(doc, &kept)
	}
	if err != nil {
		k.vms = nil
		return
	}
	k.vms[v.ID] = kept
	k.index(kept)
}

// forget is for a commit whose outcome is not certain.
func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.vms, k.byName = nil, nil
}

// list returns copies of all by name; false when they must be read first.
func (k *known) list() ([]vm.VM, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.vms == nil {
		return nil, false
	}
	if k.byName == nil {
		k.byName = slices.SortedFunc(maps.Values(k.vms), func(a, b vm.VM) int { return cmp.Compare(a.Name, b.Name) })
	}
	if len(k.byName) == 0 {
		return nil, true
	}
	out := make([]vm.VM, len(k.byName))
	for i := range k.byName {
		out[i] = k.byName[i].Clone()
	}
	return out, true
}

// VMs returns all VMs by name.
func (s *Store) VMs(ctx context.Context) ([]vm.VM, error) {
	if all, ok := s.known.list(); ok {
		return all, nil
	}
	s.known.turn.Lock()
	defer s.known.turn.Unlock()
	all, err := list[vm.VM](ctx, s, "SELECT doc FROM vms")
	if err != nil {
		return nil, err
	}
	vms := make(map[vm.ID]vm.VM, len(all))
	for _, v := range all {
		vms[v.ID] = v
	}
	s.known.learn(vms)
	all, _ = s.known.list()
	return all, nil
}

// Named returns the lease of the VM of a name; false where there is none, or where it neither runs nor is paused.
func (s *Store) Named(ctx context.Context, name string) (l vm.Lease, ok bool, err error) {
	err = s.ask(ctx, func(k *known) {
		v := k.vms[k.named[name]]
		l, ok = v.Lease, v.State == vm.Running || v.State == vm.Paused
	})
	return l, ok, err
}

// At returns the VM whose lease has an address, whatever its state; false where there is none.
func (s *Store) At(ctx context.Context, a netip.Addr) (v vm.VM, ok bool, err error) {
	err = s.ask(ctx, func(k *known) {
		if v, ok = k.vms[k.at[a]]; ok {
			v = v.Clone()
		}
	})
	return v, ok, err
}

// ask calls f once the VMs are known.
func (s *Store) ask(ctx context.Context, f func(*known)) error {
	for !s.known.ask(f) {
		if _, err := s.VMs(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (k *known) ask(f func(*known)) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.vms == nil {
		return false
	}
	f(k)
	return true
}

// learn takes in what was read.
func (k *known) learn(vms map[vm.ID]vm.VM) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.vms, k.byName, k.named, k.at = vms, nil, make(map[string]vm.ID, len(vms)), make(map[netip.Addr]vm.ID, len(vms))
	for _, v := range vms {
		k.index(v)
	}
}
