package store

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
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
	s.known.mu.Lock()
	s.known.vms, s.known.byName = vms, nil
	s.known.mu.Unlock()
	all, _ = s.known.list()
	return all, nil
}
