package initrd

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestExt4Blocks(t *testing.T) {
	tests := []struct {
		name       string
		blocks     uint64
		log        uint32
		device     int64
		have, room uint64
	}{
		{"4 KiB blocks with room", 153600, 2, 2 << 30, 153600, 524288},
		{"1 KiB blocks, full", 65536, 0, 64 << 20, 65536, 65536},
		{"a device that ends within a block", 100, 2, 100*4096 + 4095, 100, 100},
		{"more than 32 bits of blocks", 1<<32 + 5, 2, 1 << 50, 1<<32 + 5, 1 << 38},
		{"a block size that is no size", 1, 1 << 31, 1 << 40, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var super [1024]byte
			binary.LittleEndian.PutUint32(super[0x4:], uint32(tt.blocks))
			binary.LittleEndian.PutUint32(super[0x150:], uint32(tt.blocks>>32))
			binary.LittleEndian.PutUint32(super[0x18:], tt.log)
			have, room := ext4Blocks(super, tt.device)
			if have != tt.have || room != tt.room {
				t.Errorf("got %d of %d, want %d of %d", have, room, tt.have, tt.room)
			}
		})
	}
}

func TestFindInit(t *testing.T) {
	dir := t.TempDir()
	good, plain := filepath.Join(dir, "init"), filepath.Join(dir, "plain")
	for path, mode := range map[string]os.FileMode{good: 0o755, plain: 0o644} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if argv, err := findInit([]string{good, "--quiet"}); err != nil || strings.Join(argv, " ") != good+" --quiet" {
		t.Errorf("got %q, %v", argv, err)
	}
	for _, bad := range []string{plain, dir, filepath.Join(dir, "none")} {
		_, err := findInit([]string{bad})
		if want := "the root file system has no init; looked for " + bad; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLoadModulesNamesTheModule(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "modules")
	if err := loadModules(list); err != nil {
		t.Errorf("without a list: %v", err)
	}
	if err := os.WriteFile(list, []byte("/lib/modules/none.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loadModules(list); err == nil || !strings.HasPrefix(err.Error(), "load /lib/modules/none.ko: ") {
		t.Errorf("got %v", err)
	}
}

func TestAwaitFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vda")
	time.AfterFunc(20*time.Millisecond, func() { _ = os.WriteFile(path, nil, 0o600) }) // its absence fails the test
	if err := awaitFile(t.Context(), path); err != nil {
		t.Error(err)
	}
}

func TestStageError(t *testing.T) {
	cause := errors.New("no disk")
	err := at("disks", cause)
	if err.Error() != "disks: no disk" || !errors.Is(err, cause) || at("disks", nil) != nil {
		t.Errorf("got %v", err)
	}
}
