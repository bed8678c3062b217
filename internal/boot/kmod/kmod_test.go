package kmod_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"banger/internal/boot/kmod"
	"banger/internal/fault"
)

func packed(t *testing.T, content string, writer func(io.Writer) (io.WriteCloser, error)) *fstest.MapFile {
	t.Helper()
	var b bytes.Buffer
	w, err := writer(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(w, content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return &fstest.MapFile{Data: b.Bytes()}
}

// tree is a kernel's modules with every kind of packing, a chain of needs, and something built in.
func tree(t *testing.T) fstest.MapFS {
	t.Helper()
	xz, err := os.ReadFile("testdata/module.ko.xz")
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{
		"modules.dep": {Data: []byte(`kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko.gz: kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko.zst: kernel/drivers/virtio/virtio_ring.ko.gz kernel/drivers/virtio/virtio.ko
kernel/net/vmw_vsock/vmw-vsock-virtio.ko.xz: kernel/drivers/virtio/virtio_ring.ko.gz kernel/drivers/virtio/virtio.ko

kernel/gone.ko:
`)},
		"modules.builtin":                             {Data: []byte("kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c-generic.ko\n")},
		"kernel/drivers/virtio/virtio.ko":             {Data: []byte("plain")},
		"kernel/drivers/virtio/virtio_ring.ko.gz":     packed(t, "gzip", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"kernel/drivers/block/virtio_blk.ko.zst":      packed(t, "zstd", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"kernel/net/vmw_vsock/vmw-vsock-virtio.ko.xz": {Data: xz},
	}
}

func open(t *testing.T) *kmod.Tree {
	t.Helper()
	m, err := kmod.Open(tree(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestClosure(t *testing.T) {
	got, err := open(t).Closure("virtio_blk", "ext4", "vmw_vsock_virtio", "virtio")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko.gz",
		"kernel/drivers/block/virtio_blk.ko.zst", "kernel/net/vmw_vsock/vmw-vsock-virtio.ko.xz",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMissingModulesAreNamedTogether(t *testing.T) {
	_, err := open(t).Closure("virtio_blk", "virtio_net", "virtio-rng")
	if !fault.Is(err, fault.Incompatible) || !strings.Contains(err.Error(), "it lacks modules: virtio_net, virtio-rng") {
		t.Errorf("got %v", err)
	}
}

func TestHas(t *testing.T) {
	m := open(t)
	for module, want := range map[string]bool{"ext4": true, "crc32c_generic": true, "vmw_vsock_virtio": true, "vmw-vsock-virtio": true, "virtio_net": false, "": false} {
		if got := m.Has(module); got != want {
			t.Errorf("Has(%q) is %v", module, got)
		}
	}
}

func TestArchiveHoldsUnpackedModulesAndTheirOrder(t *testing.T) {
	var b bytes.Buffer
	names, err := kmod.Archive(&b, open(t), "virtio_blk", "vmw_vsock_virtio", "ext4")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"virtio", "virtio_ring", "virtio_blk", "vmw_vsock_virtio"}, names); d != "" {
		t.Error(d)
	}
	for _, want := range []string{
		"plain", "gzip", "zstd", "a module, packed by xz as distributions do",
		"/lib/modules/virtio.ko\n/lib/modules/virtio_ring.ko\n/lib/modules/virtio_blk.ko\n/lib/modules/vmw_vsock_virtio.ko\n",
	} {
		if !bytes.Contains(b.Bytes(), []byte(want)) {
			t.Errorf("it does not hold %q", want)
		}
	}
}

func TestDamage(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(fstest.MapFS)
		want string
	}{
		"no index":        {func(fs fstest.MapFS) { delete(fs, "modules.dep") }, "modules.dep"},
		"malformed index": {func(fs fstest.MapFS) { fs["modules.dep"].Data = []byte("hello\n") }, `malformed line "hello"`},
		"a file gone":     {func(fs fstest.MapFS) { delete(fs, "kernel/drivers/virtio/virtio.ko") }, "kernel/drivers/virtio/virtio.ko"},
		"not packed": {func(fs fstest.MapFS) {
			fs["kernel/drivers/virtio/virtio_ring.ko.gz"].Data = []byte("plain")
		}, "unpack module kernel/drivers/virtio/virtio_ring.ko.gz"},
		"outside the tree": {func(fs fstest.MapFS) {
			fs["modules.dep"].Data = []byte("../../../etc/virtio_blk.ko:\n")
		}, "../../../etc/virtio_blk.ko"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := tree(t)
			c.harm(fsys)
			m, err := kmod.Open(fsys)
			if err == nil {
				_, err = kmod.Archive(io.Discard, m, "virtio_blk")
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
		})
	}
}

func TestNeedsThatGoInCirclesEnd(t *testing.T) {
	m, err := kmod.Open(fstest.MapFS{"modules.dep": {Data: []byte("a.ko: b.ko\nb.ko: a.ko\n")}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Closure("a"); err != nil || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
}
