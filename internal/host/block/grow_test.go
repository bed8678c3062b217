package block_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/host/block"
)

// TestGrow holds that a disk becomes larger, keeps what is on it, takes no more of the host, and never shrinks.
func TestGrow(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := block.Allocated(disk)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{8 * mib, 8 * mib, mib} {
		if err := (block.Disks{}).Grow(disk, size); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(disk)
		if err != nil || len(content) != 8*mib || !strings.HasPrefix(string(content), "precious") {
			t.Errorf("grown to %d: it has %d bytes, %v", size, len(content), err)
		}
	}
	if after, err := block.Allocated(disk); err != nil || after > before {
		t.Errorf("it takes %d, took %d; %v", after, before, err)
	}
}

func TestGrowRefuses(t *testing.T) {
	dir := t.TempDir()
	link, none := filepath.Join(dir, "link"), filepath.Join(dir, "none")
	if err := os.Symlink("none", link); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		none: "no such file or directory",
		link: "too many levels of symbolic links",
		dir:  "is a directory",
	} {
		err := block.Disks{}.Grow(path, mib)
		if want := `grow disk "` + path + `": ` + text; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (block.Disks{}).Grow(disk, 1<<62); !fault.Is(err, fault.Invalid) {
		t.Errorf("a size that no file system has: %v", err)
	}
}
