package dm

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/vm"
)

// TestAStoreHoldsEveryChunk follows how the kernel fills a store: areas of 256 entries, each before the chunks that it
// tells of, and the next one wiped once an area is full.
func TestAStoreHoldsEveryChunk(t *testing.T) {
	for _, sectors := range []int64{1, 8, 9, 255 * 8, 256 * 8, 257 * 8, 512 * 8, 2097152, 20971520} {
		chunks := (sectors + 7) / 8
		full := chunks / 256 // areas that come to be full
		last := 1 + 257*full // the area wiped last, or begun
		if rest := chunks % 256; rest > 0 {
			last += rest
		}
		has := storeFor(sectors) / 8
		if has <= last {
			t.Errorf("%d sectors: the kernel comes to chunk %d, the store has %d", sectors, last, has)
		}
		if has > last+3+256 {
			t.Errorf("%d sectors: the store has %d chunks, and %d are enough", sectors, has, last)
		}
	}
}

func TestADiskThatGrowsKeepsItsLayout(t *testing.T) {
	image := filepath.Join(t.TempDir(), "root.ext4")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, vm.MiB); err != nil {
		t.Fatal(err)
	}
	lay := func(size int64) (layout, []target) {
		l, err := extent(vm.Overlay{Origin: image, Size: size})
		if err != nil {
			t.Fatal(err)
		}
		return l, l.table("7:0", "7:1")
	}
	exact, table := lay(vm.MiB)
	if d := cmp.Diff([]target{{0, 2048, "snapshot", "7:0 7:1 PO 8"}}, table, cmp.AllowUnexported(target{})); d != "" {
		t.Error(d)
	}
	large, table := lay(10 * vm.GiB)
	if d := cmp.Diff([]target{{0, 2048, "snapshot", "7:0 7:1 PO 8"}, {2048, 20969472, "linear", "7:1 4096"}}, table, cmp.AllowUnexported(target{})); d != "" {
		t.Error(d)
	}
	if exact.store != large.store || exact.file() != 2*vm.MiB || large.file() != 2*vm.MiB+10*vm.GiB-vm.MiB {
		t.Errorf("%+v of %d bytes, %+v of %d", exact, exact.file(), large, large.file())
	}
	if small, _ := lay(0); small != exact {
		t.Errorf("a size below the image's gives %+v", small)
	}
	if _, err := extent(vm.Overlay{Origin: filepath.Dir(image)}); err == nil {
		t.Error("a directory is an image")
	}
}

// TestTables holds the kernel's layout of a table, and of what it answers.
func TestTables(t *testing.T) {
	b := encode([]target{{0, 2048, "snapshot", "7:0 7:1 PO 8"}, {2048, 8, "linear", "7:1 4096"}})
	next := int(binary.NativeEndian.Uint32(b[20:]))
	if next != 56 || len(b) != 56+56 || binary.NativeEndian.Uint64(b[next:]) != 2048 || text(b[next+24:next+40]) != "linear" || text(b[next+40:]) != "7:1 4096" {
		t.Errorf("% x", b)
	}

	a := answer{header: unix.DmIoctl{Target_count: 2}, data: b}
	got, err := a.targets()
	if d := cmp.Diff([]target{{0, 2048, "snapshot", "7:0 7:1 PO 8"}, {2048, 8, "linear", "7:1 4096"}}, got, cmp.AllowUnexported(target{})); d != "" || err != nil {
		t.Error(d, err)
	}
	a.header.Target_count = 3
	binary.NativeEndian.PutUint32(b[next+20:], uint32(len(b)))
	if _, err := a.targets(); err == nil {
		t.Error("a cut answer is read")
	}
}

func TestNames(t *testing.T) {
	entry := func(next uint32, name string) []byte {
		b := binary.NativeEndian.AppendUint64(nil, 0xfd00)
		b = binary.NativeEndian.AppendUint32(b, next)
		b = append(b, name...)
		return append(b, 0)
	}
	first := entry(32, "a")
	list := append(append(first, make([]byte, 32-len(first))...), entry(0, "banger-ab12-0123456789ab")...)
	for name, c := range map[string]struct {
		data []byte
		want []string
		bad  bool
	}{
		"none":      {data: make([]byte, 16)},
		"no answer": {},
		"two":       {data: list, want: []string{"a", "banger-ab12-0123456789ab"}},
		"cut":       {data: list[:40], bad: true},
	} {
		got, err := answer{data: c.data}.names()
		if d := cmp.Diff(c.want, got); !c.bad && d != "" || (err != nil) != c.bad {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
}

func TestAStoreThatWasGivenUp(t *testing.T) {
	if err := judge("banger-ab12-0123456789ab", "16/4096 16"); err != nil {
		t.Error(err)
	}
	for _, status := range []string{"Invalid", "Overflow"} {
		err := judge("banger-ab12-0123456789ab", status)
		if !fault.Is(err, fault.Corrupt) || fault.From(err).Hint == "" {
			t.Errorf("%s: %v", status, err)
		}
	}
}
