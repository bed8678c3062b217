package boot_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/boot"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/vm"
)

// state is a state directory with one image and an agent.
func state(t *testing.T) *boot.Kernels {
	t.Helper()
	k := &boot.Kernels{Layout: vm.Layout{State: t.TempDir()}, Agent: filepath.Join(t.TempDir(), "banger-agent")}
	write(t, k.Agent, "agent 1")
	addImage(t, k, "aaaaaaaaaaaa")
	return k
}

func addImage(t *testing.T, k *boot.Kernels, id string) {
	t.Helper()
	write(t, filepath.Join(k.Layout.Image(id), image.FileKernel), "kernel of "+id)
	write(t, filepath.Join(k.Layout.Image(id), image.FileModules), "modules of "+id)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, k *boot.Kernels, id, dir string) os.FileInfo {
	t.Helper()
	if err := k.Link(t.Context(), id, dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, vm.FileInitrd))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestVMsShareOneInitrd(t *testing.T) {
	k := state(t)
	one, two := t.TempDir(), t.TempDir()
	first := link(t, k, "aaaaaaaaaaaa", one)
	if !os.SameFile(first, link(t, k, "aaaaaaaaaaaa", two)) {
		t.Error("two VMs of one image have two initrds")
	}
	if !os.SameFile(first, link(t, k, "aaaaaaaaaaaa", one)) {
		t.Error("a second start made another initrd")
	}
	kernel, err := os.ReadFile(filepath.Join(one, vm.FileKernel))
	if err != nil || string(kernel) != "kernel of aaaaaaaaaaaa" {
		t.Errorf("kernel %q, %v", kernel, err)
	}
	initrd, err := os.ReadFile(filepath.Join(one, vm.FileInitrd))
	if err != nil || !bytes.Contains(initrd, []byte("agent 1")) || !bytes.HasSuffix(initrd, []byte("modules of aaaaaaaaaaaa")) {
		t.Errorf("initrd of %d bytes, %v", len(initrd), err)
	}
}

func TestANewAgentMakesANewInitrd(t *testing.T) {
	k := state(t)
	addImage(t, k, "bbbbbbbbbbbb")
	dir := t.TempDir()
	first := link(t, k, "aaaaaaaaaaaa", dir)
	write(t, k.Agent, "agent number 2")
	if os.SameFile(first, link(t, k, "aaaaaaaaaaaa", dir)) {
		t.Error("the VM would boot the old agent")
	}
	gone := t.TempDir()
	link(t, k, "bbbbbbbbbbbb", gone)
	if err := os.RemoveAll(k.Layout.Image("bbbbbbbbbbbb")); err != nil {
		t.Fatal(err)
	}
	if err := k.Clean(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(k.Layout.Boot(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(1, len(left)); d != "" {
		t.Errorf("%s: of three initrds there are %v", d, left)
	}
	if _, err := os.Stat(filepath.Join(gone, vm.FileInitrd)); err != nil {
		t.Errorf("a VM lost its initrd: %v", err)
	}
}

func TestNoAgentSaysWhereItBelongs(t *testing.T) {
	k := state(t)
	k.Agent = filepath.Join(t.TempDir(), "none")
	err := k.Link(t.Context(), "aaaaaaaaaaaa", t.TempDir())
	if f := fault.From(err); f == nil || f.Code != fault.Requirement || f.Subject != k.Agent || f.Hint == "" {
		t.Errorf("got %+v", f)
	}
	if err := k.Clean(); err != nil {
		t.Errorf("clean: %v", err)
	}
}

func TestAnImageThatIsGoneLeavesNoHalfInitrd(t *testing.T) {
	k := state(t)
	if err := k.Link(t.Context(), "cccccccccccc", t.TempDir()); err == nil {
		t.Fatal("linked the kernel of no image")
	}
	left, err := filepath.Glob(filepath.Join(k.Layout.Boot(), "*", "*initrd*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestASpareInitrdIsDiscarded(t *testing.T) {
	k := state(t)
	addImage(t, k, "bbbbbbbbbbbb")
	dir := t.TempDir()
	link(t, k, "aaaaaaaaaaaa", dir)
	used, err := filepath.Glob(filepath.Join(k.Layout.Boot(), "*"))
	if err != nil || len(used) != 1 {
		t.Fatal(used, err)
	}
	if spare, err := k.Spare(); err != nil || len(spare) > 0 {
		t.Errorf("spare: %v, %v", spare, err)
	}
	if err := k.Discard(used[0]); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(used[0], "initrd")); err != nil {
		t.Errorf("a VM's initrd was discarded: %v", err)
	}
	link(t, k, "bbbbbbbbbbbb", dir) // the first has no VM any more
	spare, err := k.Spare()
	if d := cmp.Diff(used, spare); d != "" || err != nil {
		t.Fatal(d, err)
	}
	for range 2 {
		if err := k.Discard(spare[0]); err != nil {
			t.Error(err)
		}
	}
	if spare, err := k.Spare(); err != nil || len(spare) > 0 {
		t.Errorf("spare: %v, %v", spare, err)
	}
	link(t, k, "aaaaaaaaaaaa", dir)
}
