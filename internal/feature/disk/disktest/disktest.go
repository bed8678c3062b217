// Package disktest holds every way of keeping a root overlay to one contract, on any host.
package disktest

import (
	"path/filepath"
	"slices"
	"testing"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/feature/disk"
	"banger/internal/vm"
)

// Tag is of the instance that the contract is tried on.
const Tag = vm.Tag("ab12")

// Host is a host, real or not.
type Host interface {
	disk.Disks
	Devices() disk.Devices
	// Mark writes a word of four letters to a place in a disk or an image that is within the smallest of them, and
	// MarkOf reads it.
	Mark(path, word string) error
	MarkOf(path string) (string, error)
	// SizeOf is how long a disk is, in bytes.
	SizeOf(path string) (int64, error)
}

// Place is a state directory on a host.
type Place struct {
	Host
	Layout   vm.Layout
	Image    string              // id of an image of ImageSize
	VM       func(vm.ID) error   // makes a VM's directory
	Snapshot func() (dir string) // makes one of a snapshot
}

// ImageSize is how large the image's root file system is, in bytes.
const ImageSize = 4 * vm.MiB

// trial is a backend that is tried.
type trial struct {
	*testing.T
	Place
	root *disk.RootFeature
}

// Contract tries a backend. Each test has a place of its own.
func Contract(t *testing.T, backend vm.RootBackend, place func(*testing.T) Place) {
	for name, test := range map[string]func(trial){
		"reads as its image, and is private": private,
		"keeps what was written":             keeps,
		"is saved and gone on from":          saved,
		"grows":                              grows,
		"is never made anew":                 lost,
		"leaves nothing":                     leaves,
	} {
		t.Run(name, func(t *testing.T) {
			p := place(t)
			choice := disk.Choice{Wish: backend, Shares: backend == vm.RootReflink}
			c := trial{T: t, Place: p, root: disk.Root(p.Layout, Tag, choice, p, nil, p.Devices())}
			c.must(p.Mark(filepath.Join(p.Layout.Image(p.Image), "root.ext4"), "imag"))
			test(c)
		})
	}
}

func (c trial) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// draft is a new VM whose disk has a size.
func (c trial) draft(id vm.ID, size int64) vm.VM {
	c.Helper()
	v := vm.VM{ID: id, Name: "vm-" + string(id), Image: vm.ImageRef{ID: c.Image}, Spec: vm.Spec{RootDisk: size}}
	c.must(c.root.Draft(&v))
	c.must(c.root.Preflight(c.Context(), v))
	c.must(c.VM(id))
	return v
}

// create makes a VM's disk, of the image or of a snapshot.
func (c trial) create(id vm.ID, size int64, from string) vm.VM {
	c.Helper()
	v := c.draft(id, size)
	var said []string
	_, err := c.root.Provision(c.Context(), v, from, func(text string) { said = append(said, text) })
	c.must(err)
	if len(said) != 1 || said[0] != string(v.RootBackend) {
		c.Errorf("it says that it was made by %q, and is kept by %s", said, v.RootBackend)
	}
	if found, err := c.root.Find(c.Context()); err != nil || slices.ContainsFunc(found, func(r vm.Record) bool { return r.VM == id }) {
		c.Errorf("what is there before its start: %v, %v", found, err)
	}
	c.start(v)
	return v
}

func (c trial) disk(v vm.VM) string { return filepath.Join(c.Layout.Jail(v.ID), vm.FileRootDisk) }

func (c trial) holds(v vm.VM, word string) {
	c.Helper()
	got, err := c.MarkOf(c.disk(v))
	if err != nil || got != word {
		c.Errorf("%s holds %q (%v), want %q", v.Name, got, err, word)
	}
	if size, err := c.SizeOf(c.disk(v)); err != nil || size != v.Spec.RootDisk {
		c.Errorf("%s has %d bytes (%v), want %d", v.Name, size, err, v.Spec.RootDisk)
	}
}

func (c trial) records(v vm.VM) []vm.Record {
	var b feature.Blueprint
	c.root.Contribute(v, &b)
	return b.Records
}

// stop removes what a start makes.
func (c trial) stop(v vm.VM) {
	c.Helper()
	for _, r := range c.records(v) {
		if r.Kind != c.root.Removes() || r.Until != vm.UntilStop {
			c.Errorf("nobody removes %+v", r)
		}
		c.must(c.root.Remove(c.Context(), r))
	}
}

func (c trial) start(v vm.VM) {
	c.Helper()
	c.must(c.root.Up(c.Context(), v, func(string) {}))
}

func private(c trial) {
	exact, large := c.create("000000000001", ImageSize, ""), c.create("000000000002", 10*vm.GiB, "")
	c.holds(exact, "imag")
	c.holds(large, "imag")
	c.must(c.Mark(c.disk(exact), "mine"))
	c.holds(exact, "mine")
	c.holds(large, "imag")
	if word, err := c.MarkOf(filepath.Join(c.Layout.Image(c.Image), "root.ext4")); err != nil || word != "imag" {
		c.Errorf("the image holds %q, %v", word, err)
	}
}

func keeps(c trial) {
	v := c.create("000000000001", 8*vm.MiB, "")
	c.must(c.Mark(c.disk(v), "mine"))
	for range 2 {
		c.stop(v)
		c.stop(v)
		c.start(v)
		c.start(v)
		c.holds(v, "mine")
	}
	v.Spec.RootDisk = 12 * vm.MiB // its growth was cut short
	c.start(v)
	c.holds(v, "mine")
}

func saved(c trial) {
	v := c.create("000000000001", 8*vm.MiB, "")
	c.must(c.Mark(c.disk(v), "then"))
	running, stopped := c.Snapshot(), c.Snapshot()
	c.must(c.root.Save(c.Context(), v, running, func(string) {}))
	c.must(c.Mark(c.disk(v), "now!"))
	other := c.create("000000000002", 16*vm.MiB, running)
	if other.RootBackend != v.RootBackend {
		c.Errorf("it is kept by %s", other.RootBackend)
	}
	c.holds(v, "now!")
	c.holds(other, "then")
	c.stop(v)
	c.must(c.root.Save(c.Context(), v, stopped, func(string) {}))
	third := c.create("000000000003", 8*vm.MiB, stopped)
	c.must(c.Mark(c.disk(other), "else"))
	c.holds(third, "now!")
	c.holds(other, "else")
}

func grows(c trial) {
	v := c.create("000000000001", ImageSize, "")
	c.must(c.Mark(c.disk(v), "mine"))
	apply := c.root.Settings()[0].Apply
	grow := func(size int64) {
		was := v
		v.Spec.RootDisk = size
		later, err := apply(c.Context(), feature.Change{Was: was, Is: v}, func(string) {})
		if err != nil || later != "" {
			c.Fatalf("later %q, %v", later, err)
		}
	}
	grow(6 * vm.MiB)
	grow(12 * vm.MiB)
	c.holds(v, "mine")
	c.stop(v)
	grow(20 * vm.MiB)
	c.start(v)
	c.holds(v, "mine")
}

func lost(c trial) {
	v := c.draft("000000000001", ImageSize)
	for range 2 {
		if err := c.root.Up(c.Context(), v, func(string) {}); !fault.Is(err, fault.Corrupt) || fault.From(err).Hint == "" {
			c.Errorf("a disk that is missing: %v", err)
		}
	}
	_, err := c.root.Provision(c.Context(), v, "", func(string) {})
	c.must(err)
	c.start(v)
	c.must(c.Mark(c.disk(v), "mine"))
	if _, err := c.root.Provision(c.Context(), v, "", func(string) {}); !fault.Is(err, fault.AlreadyExists) {
		c.Errorf("a disk that is there: %v", err)
	}
	c.holds(v, "mine")
}

func leaves(c trial) {
	one, two := c.create("000000000001", ImageSize, ""), c.create("000000000002", 8*vm.MiB, "")
	want := slices.Concat(c.records(one), c.records(two))
	found := func() []vm.Record {
		all, err := c.root.Find(c.Context())
		c.must(err)
		slices.SortFunc(all, func(a, b vm.Record) int { return len(a.Name) - len(b.Name) })
		return all
	}
	if all := found(); len(all) != len(want) {
		c.Errorf("found %v, want %v", all, want)
	}
	for _, r := range found() {
		if !slices.Contains(want, r) {
			c.Errorf("found %v, which no record names", r)
		}
	}
	for _, v := range []vm.VM{one, two} {
		c.stop(v)
	}
	if all := found(); len(all) > 0 {
		c.Errorf("%v is left", all)
	}
}
