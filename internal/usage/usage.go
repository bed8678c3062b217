// Package usage tells what the parts of the state directory occupy of the disk, and frees what nothing needs.
package usage

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/snapshot"
	"banger/internal/vm"
)

// Category is a part of the state directory.
type Category string

// The categories, in the order in which they are told.
const (
	Images      Category = "images"
	Boot        Category = "boot" // initrds
	VMs         Category = "vms"
	Checkpoints Category = "checkpoints"
	Golden      Category = "golden"
	Trash       Category = "trash"
	Failed      Category = "failed" // logs of creates that failed
)

func categories() []Category {
	return []Category{Images, Boot, VMs, Checkpoints, Golden, Trash, Failed}
}

// Size is what files occupy of the disk, in bytes.
type Size struct {
	Allocated int64
	Shared    int64 // of it, with other files
}

// Own is what would be free without them.
func (s Size) Own() int64 { return s.Allocated - s.Shared }

// Files looks at what lies in the state directory, and removes it.
type Files interface {
	// List names what is in a directory. One that is not there has nothing.
	List(dir string) ([]string, error)
	// Measure tells what each path occupies with all that is below it. A file with several names counts once.
	Measure(ctx context.Context, paths []string) ([]Size, error)
	// Remove removes a directory with all that is in it. Gone is success.
	Remove(dir string) error
}

// Initrds knows who boots from which.
type Initrds interface {
	// Spare lists the directories of those that no VM has a link of.
	Spare() ([]string, error)
	// Discard removes one, unless a VM has it by now. Gone is success.
	Discard(dir string) error
}

// Snapshots keeps the golden ones.
type Snapshots interface {
	List(dir string) ([]string, error)
	Open(dir string) (snapshot.Manifest, error)
	Remove(dir string) error
}

// Machines are the VMs, everybody's.
type Machines interface {
	VMs(ctx context.Context) ([]vm.VM, error)
	Trash() []vm.VM
	// Destroy removes a VM from the trash, and returns when that is done.
	Destroy(ctx context.Context, id vm.ID) error
}

// Keeper keeps the accounts of a state directory.
type Keeper struct {
	Layout    vm.Layout
	Files     Files
	Initrds   Initrds
	Snapshots Snapshots
	Machines  Machines
	Images    interface {
		List() ([]image.Manifest, error)
	}
}

// Total is what one category comes to.
type Total struct {
	Category Category
	Count    int
	Size
	Reclaimable int64    // what Prune would free of it, the trash included
	Unused      []string // names of images that no VM was made from; only their user knows whether they are needed
}

// Request says what is to be freed.
type Request struct {
	DryRun bool // only tell
	Trash  bool // the trash too: its VMs cannot be taken back then
}

// Freed is a thing that nothing needs.
type Freed struct {
	Category Category
	Name     string
	Why      string // it is not needed
	Size     int64  // bytes that it has to itself
	Err      error  // why it is still there; nil also when it was only told of
}

// item is one thing in the state directory.
type item struct {
	category Category
	name     string
	paths    []string
	size     Size
	why      string // nothing needs it; empty where something does
	remove   func(context.Context) error
}

// Totals tells what each category comes to.
func (k *Keeper) Totals(ctx context.Context) ([]Total, error) {
	items, unused, err := k.survey(ctx)
	if err != nil {
		return nil, fault.From(err).InOp("measure", k.Layout.State)
	}
	var all []Total
	for _, c := range categories() {
		t := Total{Category: c}
		if c == Images {
			t.Unused = unused
		}
		for _, i := range items {
			if i.category != c {
				continue
			}
			t.Count++
			t.Allocated += i.size.Allocated
			t.Shared += i.size.Shared
			if i.why != "" {
				t.Reclaimable += i.size.Own()
			}
		}
		all = append(all, t)
	}
	return all, nil
}

// Prune frees what nothing needs. What cannot be removed is told with the reason, and the rest goes.
func (k *Keeper) Prune(ctx context.Context, caller vm.Caller, r Request) ([]Freed, error) {
	if caller.UID != 0 {
		return nil, fault.New(fault.Forbidden, "it concerns everybody's VMs, so only root may").WithOp("prune", k.Layout.State).
			WithHint("run it with sudo; `banger system df` is for everybody")
	}
	items, _, err := k.survey(ctx)
	if err != nil {
		return nil, fault.From(err).InOp("prune", k.Layout.State)
	}
	freed := []Freed{}
	for _, i := range items {
		if i.why == "" || i.category == Trash && !r.Trash {
			continue
		}
		f := Freed{Category: i.category, Name: i.name, Why: i.why, Size: i.size.Own()}
		if !r.DryRun {
			f.Err = i.remove(ctx)
		}
		freed = append(freed, f)
	}
	return freed, nil
}

// survey finds and measures everything, and names the images that no VM was made from. What several files share by
// name counts for the first of them, an initrd so where it was made.
func (k *Keeper) survey(ctx context.Context) (items []item, unused []string, err error) {
	vms, err := k.Machines.VMs(ctx)
	if err != nil {
		return nil, nil, err
	}
	images, err := k.Images.List()
	if err != nil {
		return nil, nil, err
	}
	trash := k.Machines.Trash()
	for _, list := range []func() ([]item, error){
		func() ([]item, error) { return k.whole(Images, k.Layout.Images()) },
		k.initrds,
		k.machines,
		func() ([]item, error) { return k.goldens(vms, images) },
		func() ([]item, error) { return k.trashed(trash) },
		k.failures,
	} {
		found, err := list()
		if err != nil {
			return nil, nil, err
		}
		items = append(items, found...)
	}
	for _, m := range images {
		made := func(v vm.VM) bool { return v.Image.ID == m.ID }
		if !slices.ContainsFunc(vms, made) && !slices.ContainsFunc(trash, made) {
			unused = append(unused, m.Name)
		}
	}
	return items, unused, k.measure(ctx, items)
}

func (k *Keeper) measure(ctx context.Context, items []item) error {
	var paths []string
	for _, i := range items {
		paths = append(paths, i.paths...)
	}
	sizes, err := k.Files.Measure(ctx, paths)
	if err != nil {
		return err
	}
	for i := range items {
		for range items[i].paths {
			items[i].size.Allocated += sizes[0].Allocated
			items[i].size.Shared += sizes[0].Shared
			sizes = sizes[1:]
		}
	}
	return nil
}

// whole takes each entry of a directory for an item that is needed.
func (k *Keeper) whole(c Category, dir string) ([]item, error) {
	names, err := k.Files.List(dir)
	items := make([]item, len(names))
	for i, name := range names {
		items[i] = item{category: c, name: name, paths: []string{filepath.Join(dir, name)}}
	}
	return items, err
}

func (k *Keeper) initrds() ([]item, error) {
	items, err := k.whole(Boot, k.Layout.Boot())
	if err != nil {
		return nil, err
	}
	spare, err := k.Initrds.Spare()
	for i := range items {
		if dir := items[i].paths[0]; slices.Contains(spare, dir) {
			items[i].why = "no VM has it; a start that needs it makes it anew"
			items[i].remove = func(context.Context) error { return k.Initrds.Discard(dir) }
		}
	}
	return items, err
}

func (k *Keeper) machines() ([]item, error) {
	items, err := k.whole(VMs, k.Layout.VMs())
	if err != nil {
		return nil, err
	}
	var checkpoints []item
	for i, v := range items {
		dir := v.paths[0]
		names, err := k.Files.List(dir)
		if err != nil {
			return nil, err
		}
		items[i].paths = nil
		for _, name := range names {
			if name != vm.DirCheckpoints {
				items[i].paths = append(items[i].paths, filepath.Join(dir, name))
			}
		}
		found, err := k.whole(Checkpoints, filepath.Join(dir, vm.DirCheckpoints))
		if err != nil {
			return nil, err
		}
		checkpoints = append(checkpoints, found...)
	}
	return append(items, checkpoints...), nil
}

// goldens are needed while a VM that runs shares their memory: it would not be free before that VM ends. One that is
// not sealed is being made.
func (k *Keeper) goldens(vms []vm.VM, images []image.Manifest) ([]item, error) {
	items, err := k.whole(Golden, k.Layout.Golden())
	if err != nil {
		return nil, err
	}
	sealed, err := k.Snapshots.List(k.Layout.Golden())
	for i := range items {
		key, dir := items[i].name, items[i].paths[0]
		if !slices.Contains(sealed, key) || slices.ContainsFunc(vms, func(v vm.VM) bool { return v.Golden == key }) {
			continue
		}
		items[i].why = "no running VM shares its memory; a create that wants it boots instead, and it is made anew"
		items[i].remove = func(context.Context) error { return k.Snapshots.Remove(dir) }
		m, err := k.Snapshots.Open(dir)
		if err != nil {
			items[i].why = "it cannot be used: " + fault.From(err).Msg
			continue
		}
		of := m.Frozen.Image
		if j := slices.IndexFunc(images, func(x image.Manifest) bool { return x.ID == of }); j >= 0 {
			of = images[j].Name
		}
		items[i].name = fmt.Sprintf("%s (%s, vCPUs %d, memory %s)", key, of, m.Frozen.VCPU, vm.FormatSize(m.Frozen.Memory))
	}
	return items, err
}

func (k *Keeper) trashed(trash []vm.VM) ([]item, error) {
	items, err := k.whole(Trash, k.Layout.Trash())
	for i := range items {
		id := vm.ID(items[i].name)
		j := slices.IndexFunc(trash, func(v vm.VM) bool { return v.ID == id })
		if j < 0 {
			continue // it cannot be read, or is being destroyed
		}
		items[i].name = fmt.Sprintf("%s (%s)", trash[j].Name, id)
		items[i].why = "it was deleted; it can no longer be taken back then"
		items[i].remove = func(ctx context.Context) error { return k.Machines.Destroy(ctx, id) }
	}
	return items, err
}

func (k *Keeper) failures() ([]item, error) {
	items, err := k.whole(Failed, k.Layout.Failed())
	for i := range items {
		dir := items[i].paths[0]
		items[i].why = "only its operation's error refers to it"
		items[i].remove = func(context.Context) error { return k.Files.Remove(dir) }
	}
	return items, err
}
