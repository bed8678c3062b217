package block_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/block"
)

const mib = 1 << 20

// sparse makes a file of 8 MiB with data at 1 MiB and at 6 MiB.
func sparse(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8 * mib); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1 * mib, 6 * mib} {
		if _, err := f.WriteAt(bytes.Repeat([]byte("banger\n."), 8192), at); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestCloneIsPrivateSparseAndGrown(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "seed"), filepath.Join(dir, "disk")
	want := sparse(t, src)
	method, err := block.Disks{}.Clone(t.Context(), src, dst, 1024*mib)
	if err != nil {
		t.Fatal(err)
	}
	reflinks, err := block.Reflinks(dir)
	if err != nil || reflinks != (method == block.Reflink) {
		t.Errorf("the file system reflinks: %v (%v), the clone was made by %s", reflinks, err, method)
	}
	f, err := os.OpenFile(dst, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() != 1024*mib || info.Mode() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the clone differs from its source (%v)", err)
	}
	if used, err := block.Allocated(dst); err != nil || used > 1*mib {
		t.Errorf("it occupies %d bytes, %v", used, err)
	}
	if _, err := f.WriteAt([]byte("mine"), mib); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(src); err != nil || !bytes.Equal(now, want) {
		t.Errorf("a write to the clone changed its source (%v)", err)
	}
	if leftover, _ := filepath.Glob(filepath.Join(dir, ".*")); len(leftover) > 0 {
		t.Errorf("left behind: %v", leftover)
	}
}

func TestCloneAcrossFileSystems(t *testing.T) {
	src, dst := filepath.Join(t.TempDir(), "seed"), filepath.Join(tmpfs(t), "disk")
	want := sparse(t, src)
	method, err := block.Disks{}.Clone(t.Context(), src, dst, 0)
	if err != nil || method != block.Copy {
		t.Fatalf("%q, %v", method, err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy differs (%v)", err)
	}
}

// TestCopySharesNothing copies on a file system that could share, if this one can.
func TestCopySharesNothing(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "seed"), filepath.Join(dir, "disk")
	want := sparse(t, src)
	method, err := block.Disks{}.Copy(t.Context(), src, dst, 16*mib)
	if err != nil || method != block.Copy {
		t.Fatalf("%q, %v", method, err)
	}
	got, err := os.ReadFile(dst)
	if err != nil || len(got) != 16*mib || !bytes.Equal(got[:8*mib], want) {
		t.Errorf("the copy differs (%v)", err)
	}
	sizes, err := block.Tree{}.Measure(t.Context(), []string{dst})
	if err != nil || sizes[0].Shared != 0 || sizes[0].Allocated == 0 || sizes[0].Allocated > mib {
		t.Errorf("it occupies %+v, %v", sizes, err)
	}
}

func TestCloneOfAHoleAndOfNothing(t *testing.T) {
	for _, size := range []int64{0, 3 * mib} {
		dir := t.TempDir()
		src, dst := filepath.Join(dir, "seed"), filepath.Join(dir, "disk")
		if err := os.WriteFile(src, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(src, size); err != nil {
			t.Fatal(err)
		}
		if _, err := (block.Disks{}).Clone(t.Context(), src, dst, 0); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dst); err != nil || info.Size() != size {
			t.Errorf("%v, %v", info, err)
		}
	}
}

// tmpfs mounts a file system of 1 MiB for the test's time.
func tmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("banger-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount a tmpfs (the test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestCloneRefuses(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "seed")
	sparse(t, src)
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(tmpfs(t), "disk")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name     string
		ctx      context.Context
		src, dst string
		size     int64
		code     fault.Code
		text     string
	}{
		{"a size that cuts", t.Context(), src, filepath.Join(dir, "a"), 4 * mib, fault.Invalid, `clone disk "` + dir + `/a": 4 MiB is less than the 8 MiB it must hold`},
		{"an existing file", t.Context(), src, taken, 0, fault.AlreadyExists, `clone disk "` + taken + `": file exists`},
		{"a missing source", t.Context(), src + "x", filepath.Join(dir, "b"), 0, fault.Internal, `clone disk "` + src + `x": no such file or directory`},
		{"a directory", t.Context(), dir, filepath.Join(dir, "c"), 0, fault.Internal, `clone disk "` + dir + `": it is not a regular file`},
		{"a cancelled create", ended, src, other, 0, fault.Canceled, `clone disk "` + other + `": context canceled`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := block.Disks{}.Clone(c.ctx, c.src, c.dst, c.size)
			if !fault.Is(err, c.code) || err.Error() != c.text {
				t.Errorf("%v: %v", fault.CodeOf(err), err)
			}
			if c.dst != taken {
				if ok, err := (block.Disks{}).Exists(c.dst); ok || err != nil {
					t.Errorf("half a disk is left: %v %v", ok, err)
				}
			}
		})
	}
	if b, err := os.ReadFile(taken); err != nil || string(b) != "precious" {
		t.Errorf("overwritten: %q %v", b, err)
	}
}

func TestFullFileSystem(t *testing.T) {
	src, small := filepath.Join(t.TempDir(), "seed"), tmpfs(t)
	if err := os.WriteFile(src, bytes.Repeat([]byte("x"), 4*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(small, "disk")
	_, err := block.Disks{}.Clone(t.Context(), src, dst, 0)
	if !fault.Is(err, fault.Exhausted) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if free, size, err := block.Space(small); err != nil || free != 1*mib || size != 1*mib {
		t.Errorf("free %d of %d, %v: the half-made disk still occupies space", free, size, err)
	}
}
