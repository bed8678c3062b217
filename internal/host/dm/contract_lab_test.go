//go:build lab

package dm_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/feature/disk"
	"banger/internal/feature/disk/disktest"
	"banger/internal/host/block"
	"banger/internal/host/dm"
	"banger/internal/vm"
)

// real is the kernel, and a file system that shares blocks.
type real struct{ block.Disks }

func (real) Devices() disk.Devices { return dm.New(disktest.Tag) }

const markAt = vm.MiB

func (real) Mark(path, word string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(word), markAt)
	return err
}

func (real) MarkOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 4)
	_, err = f.ReadAt(b, markAt)
	return string(b), err
}

func (real) SizeOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

func TestContract(t *testing.T) {
	for _, b := range []vm.RootBackend{vm.RootReflink, vm.RootSnapshot, vm.RootCopy} {
		t.Run(string(b), func(t *testing.T) { disktest.Contract(t, b, place) })
	}
}

func place(t *testing.T) disktest.Place {
	p := disktest.Place{Host: real{}, Layout: vm.Layout{State: t.TempDir()}, Image: "img", Snapshot: t.TempDir}
	p.VM = func(id vm.ID) error { return os.MkdirAll(p.Layout.Jail(id), 0o700) }
	image := p.Layout.Image(p.Image)
	if err := os.MkdirAll(image, 0o700); err != nil {
		t.Fatal(err)
	}
	content := make([]byte, disktest.ImageSize)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content[:disktest.ImageSize/2]) // never fails
	if err := os.WriteFile(filepath.Join(image, "root.ext4"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d := dm.New(disktest.Tag)
		names, err := d.Names()
		if err != nil {
			t.Error(err)
		}
		for _, name := range names {
			if err := d.Down(context.WithoutCancel(t.Context()), name, ""); err != nil {
				t.Error(err)
			}
		}
	})
	return p
}

// TestTheSameBytes reads each kind of disk whole, as a guest's first boot finds it.
func TestTheSameBytes(t *testing.T) {
	p := place(t)
	sums := map[string][]vm.RootBackend{}
	for i, b := range []vm.RootBackend{vm.RootReflink, vm.RootSnapshot, vm.RootCopy} {
		v := vm.VM{ID: vm.ID(fmt.Sprintf("%012d", i)), Image: vm.ImageRef{ID: p.Image}, Spec: vm.Spec{RootDisk: 3 * disktest.ImageSize}, RootBackend: b}
		if err := p.VM(v.ID); err != nil {
			t.Fatal(err)
		}
		root := disk.Root(p.Layout, disktest.Tag, disk.Choice{}, p, nil, p.Devices())
		_, err := root.Provision(t.Context(), v, "", func(string) {})
		if err := errors.Join(err, root.Up(t.Context(), v, func(string) {})); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(p.Layout.Jail(v.ID), vm.FileRootDisk))
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err = errors.Join(err, f.Close()); err != nil || n != v.Spec.RootDisk {
			t.Errorf("%s: %d bytes, %v", b, n, err)
		}
		sum := fmt.Sprintf("%x", h.Sum(nil))
		sums[sum] = append(sums[sum], b)
	}
	if len(sums) != 1 {
		t.Errorf("they differ: %v", sums)
	}
}
