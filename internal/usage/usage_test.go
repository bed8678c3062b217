package usage_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/snapshot"
	"banger/internal/usage"
	"banger/internal/vm"
)

// host is a state directory in memory, and everything that a keeper asks: what lies where, by path, with its size.
type host struct {
	files   map[string]usage.Size
	spare   []string
	sealed  map[string]snapshot.Manifest
	vms     []vm.VM
	trash   []vm.VM
	images  []image.Manifest
	err     error  // what every look fails with
	stuck   string // cannot be removed
	removed []string
}

const state = "/state"

func (h *host) List(dir string) ([]string, error) {
	found := map[string]bool{}
	for path := range h.files {
		if rest, ok := strings.CutPrefix(path, dir+"/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			found[name] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), h.err
}

func (h *host) Measure(_ context.Context, paths []string) ([]usage.Size, error) {
	sizes := make([]usage.Size, len(paths))
	for i, at := range paths {
		for path, s := range h.files {
			if path == at || strings.HasPrefix(path, at+"/") {
				sizes[i].Allocated += s.Allocated
				sizes[i].Shared += s.Shared
			}
		}
	}
	return sizes, h.err
}

func (h *host) Remove(dir string) error {
	if dir == h.stuck {
		return fault.System(fs.ErrPermission, "remove", dir)
	}
	h.removed = append(h.removed, strings.TrimPrefix(dir, state+"/"))
	return nil
}

func (h *host) Spare() ([]string, error)             { return h.spare, h.err }
func (h *host) Discard(dir string) error             { return h.Remove(dir) }
func (h *host) Trash() []vm.VM                       { return h.trash }
func (h *host) VMs(context.Context) ([]vm.VM, error) { return h.vms, h.err }
func (h *host) Destroy(_ context.Context, id vm.ID) error {
	return h.Remove(vm.Layout{State: state}.Trashed(id))
}

// snapshots and catalog are a host whose lists are of other things.
type (
	snapshots struct{ *host }
	catalog   struct{ *host }
)

func (s snapshots) List(string) ([]string, error) { return slices.Sorted(maps.Keys(s.sealed)), s.err }

func (s snapshots) Open(dir string) (snapshot.Manifest, error) {
	m := s.sealed[filepath.Base(dir)]
	if m.Schema == 0 {
		return m, fault.New(fault.Corrupt, "its file state is not what was sealed")
	}
	return m, nil
}

func (c catalog) List() ([]image.Manifest, error) { return c.images, c.err }

func (h *host) keeper() *usage.Keeper {
	return &usage.Keeper{Layout: vm.Layout{State: state}, Files: h, Initrds: h, Snapshots: snapshots{h}, Machines: h, Images: catalog{h}}
}

// furnished is a state directory with something of each sort.
func furnished() *host {
	of := func(vcpu int) snapshot.Manifest {
		return snapshot.Manifest{Schema: 1, Frozen: snapshot.Frozen{Image: "img1", VCPU: vcpu, Memory: vm.GiB}}
	}
	return &host{
		files: map[string]usage.Size{
			"/state/banger.db":                          {Allocated: 1 << 40},
			"/state/images/img1/root.ext4":              {Allocated: 1000, Shared: 900},
			"/state/images/img2/root.ext4":              {Allocated: 500},
			"/state/images/img3/root.ext4":              {Allocated: 50},
			"/state/boot/a-img1/initrd":                 {Allocated: 10},
			"/state/boot/a-img2/initrd":                 {Allocated: 20},
			"/state/vms/1f0c/vm.json":                   {Allocated: 1},
			"/state/vms/1f0c/jail/root.ext4":            {Allocated: 1100, Shared: 900},
			"/state/vms/1f0c/checkpoints/before/memory": {Allocated: 300},
			"/state/vms/1f0c/checkpoints/after/memory":  {Allocated: 400, Shared: 100},
			"/state/golden/used/memory":                 {Allocated: 70},
			"/state/golden/idle/memory":                 {Allocated: 80},
			"/state/golden/idle/root.ext4":              {Allocated: 1000, Shared: 990},
			"/state/golden/made/memory":                 {Allocated: 90},
			"/state/golden/rotten/memory":               {Allocated: 60},
			"/state/trash/2a0c/jail/root.ext4":          {Allocated: 600, Shared: 500},
			"/state/trash/77ab/x":                       {Allocated: 5},
			"/state/failed/op-1/console.log":            {Allocated: 4},
		},
		spare:  []string{"/state/boot/a-img2"},
		sealed: map[string]snapshot.Manifest{"used": of(1), "idle": of(2), "rotten": {}},
		vms:    []vm.VM{{ID: "1f0c", Image: vm.ImageRef{ID: "img1"}, Golden: "used"}},
		trash:  []vm.VM{{ID: "2a0c", Name: "gone", Image: vm.ImageRef{ID: "img3"}}},
		images: []image.Manifest{{ID: "img1", Name: "debian:12"}, {ID: "img2", Name: "old"}, {ID: "img3", Name: "tiny"}},
	}
}

func TestTotals(t *testing.T) {
	got, err := furnished().keeper().Totals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []usage.Total{
		{Category: usage.Images, Count: 3, Size: usage.Size{Allocated: 1550, Shared: 900}, Unused: []string{"old"}},
		{Category: usage.Boot, Count: 2, Size: usage.Size{Allocated: 30}, Reclaimable: 20},
		{Category: usage.VMs, Count: 1, Size: usage.Size{Allocated: 1101, Shared: 900}},
		{Category: usage.Checkpoints, Count: 2, Size: usage.Size{Allocated: 700, Shared: 100}},
		{Category: usage.Golden, Count: 4, Size: usage.Size{Allocated: 1300, Shared: 990}, Reclaimable: 150},
		{Category: usage.Trash, Count: 2, Size: usage.Size{Allocated: 605, Shared: 500}, Reclaimable: 100},
		{Category: usage.Failed, Count: 1, Size: usage.Size{Allocated: 4}, Reclaimable: 4},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestWhatIsPruned holds that images, VMs, checkpoints, and what is used or under way are never among it.
func TestWhatIsPruned(t *testing.T) {
	kept := []usage.Freed{
		{Category: usage.Boot, Name: "a-img2", Why: "no VM has it; a start that needs it makes it anew", Size: 20},
		{Category: usage.Golden, Name: "idle (debian:12, vCPUs 2, memory 1 GiB)", Why: "no running VM shares its memory; a create that wants it boots instead, and it is made anew", Size: 90},
		{Category: usage.Golden, Name: "rotten", Why: "it cannot be used: its file state is not what was sealed", Size: 60},
		{Category: usage.Failed, Name: "op-1", Why: "only its operation's error refers to it", Size: 4},
	}
	withTrash := slices.Insert(slices.Clone(kept), 3, usage.Freed{Category: usage.Trash, Name: "gone (2a0c)", Why: "it was deleted; it can no longer be taken back then", Size: 100})
	for _, c := range []struct {
		ask     usage.Request
		want    []usage.Freed
		removed []string
	}{
		{usage.Request{DryRun: true}, kept, nil},
		{usage.Request{DryRun: true, Trash: true}, withTrash, nil},
		{usage.Request{}, kept, []string{"boot/a-img2", "golden/idle", "golden/rotten", "failed/op-1"}},
		{usage.Request{Trash: true}, withTrash, []string{"boot/a-img2", "golden/idle", "golden/rotten", "trash/2a0c", "failed/op-1"}},
	} {
		h := furnished()
		got, err := h.keeper().Prune(t.Context(), vm.Caller{}, c.ask)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%+v: %s", c.ask, d)
		}
		if d := cmp.Diff(c.removed, h.removed); d != "" {
			t.Errorf("%+v: %s", c.ask, d)
		}
	}
}

func TestWhatCannotBeRemovedIsTold(t *testing.T) {
	h := furnished()
	h.stuck = "/state/golden/idle"
	got, err := h.keeper().Prune(t.Context(), vm.Caller{}, usage.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[1].Err == nil || got[1].Err.Error() != `remove "/state/golden/idle": permission denied` {
		t.Errorf("got %+v", got)
	}
	if want := []string{"boot/a-img2", "golden/rotten", "failed/op-1"}; !slices.Equal(h.removed, want) {
		t.Errorf("removed %q", h.removed)
	}
}

func TestOnlyRootPrunes(t *testing.T) {
	h := furnished()
	_, err := h.keeper().Prune(t.Context(), vm.Caller{UID: 1000}, usage.Request{DryRun: true})
	if !fault.Is(err, fault.Forbidden) || err.Error() != `prune "/state": it concerns everybody's VMs, so only root may` || fault.From(err).Hint == "" {
		t.Errorf("got %v", err)
	}
}

func TestNothingIsPrunedBlindly(t *testing.T) {
	h := furnished()
	h.err = errors.New("the disk is sick")
	_, terr := h.keeper().Totals(t.Context())
	_, perr := h.keeper().Prune(t.Context(), vm.Caller{}, usage.Request{Trash: true})
	for op, err := range map[string]error{"measure": terr, "prune": perr} {
		if err == nil || err.Error() != op+` "/state": the disk is sick` {
			t.Errorf("got %v", err)
		}
	}
	if len(h.removed) > 0 {
		t.Errorf("removed %q", h.removed)
	}
}

func TestAnEmptyState(t *testing.T) {
	h := &host{}
	totals, err := h.keeper().Totals(t.Context())
	if err != nil || len(totals) != 7 {
		t.Errorf("%+v, %v", totals, err)
	}
	freed, err := h.keeper().Prune(t.Context(), vm.Caller{}, usage.Request{Trash: true})
	if d := cmp.Diff([]usage.Freed{}, freed, cmpopts.EquateEmpty()); d != "" || err != nil {
		t.Errorf("%s, %v", d, err)
	}
}
