//go:build lab

package dm_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/block"
	"banger/internal/host/dm"
	"banger/internal/vm"
)

// These need device-mapper, and run inside the lab: e2e/storage/dm.

const tag = vm.Tag("ab12")

// disk is an overlay over an image of 4 MiB that begins with "image".
type disk struct {
	*testing.T
	dm *dm.Snapshots
	o  vm.Overlay
}

func newImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.ext4")
	content := make([]byte, 4*vm.MiB)
	copy(content, "image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newDisk(t *testing.T, image string, id vm.ID, size int64) disk {
	t.Helper()
	dir := t.TempDir()
	d := disk{t, dm.New(tag), vm.Overlay{Device: id.RootDevice(tag), Origin: image, Cow: filepath.Join(dir, "root.cow"), Node: filepath.Join(dir, "root.ext4"), Size: size}}
	t.Cleanup(func() { d.must(d.dm.Down(t.Context(), d.o.Device, d.o.Node)) })
	return d
}

func (d disk) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d disk) make() {
	d.Helper()
	d.must(d.dm.Make(d.o))
	d.must(d.dm.Up(d.Context(), d.o))
}

func (d disk) write(at int64, text string) {
	d.Helper()
	f, err := os.OpenFile(d.o.Node, os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	_, err = f.WriteAt([]byte(text), at)
	d.must(err)
	d.must(f.Sync())
}

func (d disk) holds(at int64, text string) {
	d.Helper()
	f, err := os.Open(d.o.Node)
	d.must(err)
	defer f.Close()
	b := make([]byte, len(text))
	if _, err := f.ReadAt(b, at); err != nil || string(b) != text {
		d.Errorf("at %d: %q, %v", at, b, err)
	}
	if end, err := f.Seek(0, 2); err != nil || end != d.o.Size {
		d.Errorf("it is %d bytes long, %v", end, err)
	}
}

func (d disk) up() []string {
	d.Helper()
	names, err := d.dm.Names()
	d.must(err)
	return names
}

// loops counts the loop devices of a file.
func loops(t *testing.T, file string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == file {
			n++
		}
	}
	return n
}

func TestCheck(t *testing.T) {
	if err := dm.New(tag).Check(); err != nil {
		t.Fatal(err)
	}
}

func TestOverlays(t *testing.T) {
	image := newImage(t)
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	one, two := newDisk(t, image, "000000000001", 4*vm.MiB), newDisk(t, image, "000000000002", 10*vm.GiB)
	one.make()
	two.make()
	if err := one.dm.Make(one.o); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("a file was made anew: %v", err)
	}
	if names := one.up(); !slices.Equal(names, []string{two.o.Device, one.o.Device}) && !slices.Equal(names, []string{one.o.Device, two.o.Device}) {
		t.Errorf("%v", names)
	}
	if n := loops(t, image); n != 1 {
		t.Errorf("the image has %d loop devices", n)
	}
	one.holds(0, "image")
	one.holds(4*vm.MiB-5, "\x00\x00\x00\x00\x00")
	two.holds(10*vm.GiB-5, "\x00\x00\x00\x00\x00")
	if used, err := block.Allocated(two.o.Cow); err != nil || used > vm.MiB {
		t.Errorf("an overlay that nothing was written to occupies %d bytes, %v", used, err)
	}

	// Each is private, before and behind the image's end.
	one.write(0, "one")
	two.write(4*vm.MiB-2, "across")
	two.write(9*vm.GiB, "far")
	one.holds(0, "onege")
	two.holds(0, "image")

	// What was written stays through removal, which is idempotent, and through being made over what is there.
	one.must(one.dm.Down(t.Context(), one.o.Device, one.o.Node))
	one.must(one.dm.Down(t.Context(), one.o.Device, one.o.Node))
	if names := one.up(); !slices.Equal(names, []string{two.o.Device}) {
		t.Errorf("%v", names)
	}
	if n := loops(t, one.o.Cow); n != 0 {
		t.Errorf("a device that is gone has %d loop devices", n)
	}
	one.must(one.dm.Up(t.Context(), one.o))
	one.must(one.dm.Up(t.Context(), one.o))
	one.holds(0, "onege")
	two.holds(4*vm.MiB-2, "across")
	two.holds(9*vm.GiB, "far")
	one.must(one.dm.Down(t.Context(), one.o.Device, one.o.Node))
	two.must(two.dm.Down(t.Context(), two.o.Device, two.o.Node))
	if n := loops(t, image); n != 0 {
		t.Errorf("the image has %d loop devices once the last overlay has gone", n)
	}
	if after, err := os.ReadFile(image); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the image was written to (%v)", err)
	}
}

// TestGrow grows an overlay while somebody has it open, as a hypervisor has.
func TestGrow(t *testing.T) {
	d := newDisk(t, newImage(t), "000000000003", 4*vm.MiB)
	d.make()
	d.write(vm.MiB, "before")
	f, err := os.OpenFile(d.o.Node, os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	for _, size := range []int64{6 * vm.MiB, 12 * vm.MiB} {
		d.o.Size = size
		d.must(d.dm.Grow(t.Context(), d.o))
		d.must(d.dm.Usable(d.o.Device))
		d.holds(vm.MiB, "before")
		d.holds(size-1, "\x00")
		d.write(size-7, "mark")
		d.write(2*vm.MiB, fmt.Sprint(size))
	}
	d.must(f.Close())
	d.must(d.dm.Down(t.Context(), d.o.Device, d.o.Node))
	d.must(d.dm.Up(t.Context(), d.o))
	d.holds(vm.MiB, "before")
	d.holds(2*vm.MiB, fmt.Sprint(12*vm.MiB))
	d.holds(6*vm.MiB-7, "mark")
	d.holds(12*vm.MiB-7, "mark")
}

// TestTheWholeImageIsWritten holds that the store has room for all of it, and the stretch behind it is not touched.
func TestTheWholeImageIsWritten(t *testing.T) {
	d := newDisk(t, newImage(t), "000000000004", 8*vm.MiB)
	d.make()
	d.write(0, strings.Repeat("a", 8<<20))
	d.must(d.dm.Usable(d.o.Device))
	d.must(d.dm.Down(t.Context(), d.o.Device, d.o.Node))
	d.must(d.dm.Up(t.Context(), d.o))
	d.holds(0, strings.Repeat("a", 8<<20))
}

// TestCopies takes a copy of the file while the device is in use.
func TestCopies(t *testing.T) {
	image := newImage(t)
	d, other := newDisk(t, image, "000000000005", 8*vm.MiB), newDisk(t, image, "000000000006", 16*vm.MiB)
	d.make()
	f, err := os.OpenFile(d.o.Node, os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	for _, at := range []int64{vm.MiB, 7 * vm.MiB} {
		_, err = f.WriteAt([]byte("here"), at) // it is in the page cache, and nobody syncs it
		d.must(err)
	}
	d.must(d.dm.Flush(d.o))
	_, err = block.Disks{}.Clone(t.Context(), d.o.Cow, other.o.Cow, 0)
	d.must(err)
	d.write(vm.MiB, "gone")
	d.must(f.Close())
	other.must(other.dm.Up(t.Context(), other.o))
	other.holds(0, "image")
	other.holds(vm.MiB, "here")
	other.holds(7*vm.MiB, "here")
	d.must(d.dm.Down(t.Context(), d.o.Device, d.o.Node))
	d.must(d.dm.Flush(d.o))
}

// TestAFullHost fills the file system of an overlay's file. The kernel then gives the store up, and that is said,
// now and whenever it is to be used again.
func TestAFullHost(t *testing.T) {
	small := t.TempDir()
	if err := unix.Mount("banger-test", small, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	d := newDisk(t, newImage(t), "000000000007", 4*vm.MiB)
	d.o.Cow = filepath.Join(small, "root.cow")
	d.make()
	d.write(0, "safe")
	f, err := os.OpenFile(d.o.Node, os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	_, err = f.Write(bytes.Repeat([]byte("x"), 4<<20))
	if serr := f.Sync(); err == nil && serr == nil {
		t.Fatal("the host was not full")
	}
	d.must(f.Close())
	for _, err := range []error{d.dm.Usable(d.o.Device), d.dm.Up(t.Context(), d.o)} {
		if !fault.Is(err, fault.Corrupt) || fault.From(err).Hint == "" {
			t.Errorf("it is as if nothing were lost: %v", err)
		}
	}
	if names := d.up(); len(names) != 0 {
		t.Errorf("%v is left", names)
	}
}

func TestWhatIsMissing(t *testing.T) {
	d := newDisk(t, newImage(t), "000000000008", 4*vm.MiB)
	if err := d.dm.Up(t.Context(), d.o); err == nil {
		t.Error("a lost file was made anew")
	}
	if _, err := os.Lstat(d.o.Cow); !os.IsNotExist(err) {
		t.Error(err)
	}
	d.must(d.dm.Make(d.o))
	d.must(os.Remove(d.o.Origin))
	if err := d.dm.Up(t.Context(), d.o); err == nil {
		t.Error("a lost image is none")
	}
	if names := d.up(); len(names) != 0 {
		t.Errorf("%v is left", names)
	}
}
